"""Database engines whose pools measure and report what they do."""
