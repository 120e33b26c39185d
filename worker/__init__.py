"""The Celery service: from the queue to the hypertable."""
