"""Text output for people, on a terminal or in lines."""
