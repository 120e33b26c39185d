"""The merged view: the processes' reports joined with what the servers show."""
