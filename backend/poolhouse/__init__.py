"""Monitoring and an engine for Django's database connection pools: each process reports, one reader merges."""

__version__ = "0.1.0"
