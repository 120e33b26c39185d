"""The report of each process, and the Redis store that collects the reports."""
