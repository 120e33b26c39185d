"""For whom a statement runs, what it costs, and what is worth a line in the log."""
