"""Counters and histograms of durations: recording, merging and their form on the wire."""
