"""The merged view: reports joined with what the servers say."""
