"""gunicorn's settings. Start it in `backend/` with `gunicorn config.wsgi`."""

from typing import Any

from config.env import Web, read
from config.start import start

start("web")
web = read(Web)

bind = f"{web.web_bind}:{web.web_port}"
workers = web.web_processes
threads = web.web_threads
worker_class = "config.request_worker.RequestWorker"
# docs/security.md documents these limits.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# With sendfile the kernel would send files without the worker's limit for slow clients.
sendfile = False
# The children would share a pool that was filled before the fork.
preload_app = False
# A heartbeat file on a disk can stall a worker while the disk is busy.
worker_tmp_dir = "/dev/shm"  # noqa: S108


def post_worker_init(worker: Any) -> None:
    """Open the connections that each web process starts with (DB_MIN_CONNS)."""
    from poolhouse.process.pools import warm_up

    warm_up()
