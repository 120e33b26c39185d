"""The worker's and beat's entry point: `celery -A worker.app worker` or `beat`."""

import sys

from config.env import Queue, read
from config.start import start
from poolhouse import started

start("beat" if started.service() == "beat" else "worker")

from django.conf import settings  # noqa: E402

from config.celery import app  # noqa: E402
from worker.connections import follow_conn_max_age  # noqa: E402
from worker.heartbeat import start_heartbeats  # noqa: E402
from worker.schedule import beat_schedule  # noqa: E402

if not settings.CELERY_WORKER_RUNNING:
    sys.stderr.write(
        "CELERY_WORKER_RUNNING is not set, so this process would use the connection pool of the web and fork with it. "
        "Set CELERY_WORKER_RUNNING=1 for the worker and for beat.\n"
    )
    raise SystemExit(2)

follow_conn_max_age()
if (heartbeat_file := read(Queue).heartbeat_file) is not None:
    start_heartbeats(heartbeat_file)
app.conf.update(beat_schedule=beat_schedule(), include=["worker.tasks"])
