"""What a process tells the others, and where the reports meet."""
