"""Experiments on servers of their own: load, measurements, comparisons, reports, charts."""
