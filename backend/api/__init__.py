"""The HTTP API: uploads to the spool, jobs to look at."""
