"""Database connection pools as they really are: every process reports its own, one reader merges them."""

__version__ = "0.1.0"
