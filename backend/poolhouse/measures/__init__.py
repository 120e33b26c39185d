"""Counters and durations, as they are kept, merged and sent."""
