"""The HTTP API: uploads, and the progress and rejected rows of their jobs."""
