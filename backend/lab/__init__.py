"""Experiments: scenarios, load, comparison, reports."""
