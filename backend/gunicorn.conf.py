"""gunicorn's settings. It is started in `backend/` as `gunicorn config.wsgi`."""

from typing import Any

from config.env import Web, read
from config.start import start

start("web")
web = read(Web)

bind = f"{web.web_bind}:{web.web_port}"
workers = web.web_processes
threads = web.web_threads
worker_class = "config.request_worker.RequestWorker"
# docs/security.md names these.
limit_request_line = 4094
limit_request_fields = 100
limit_request_field_size = 8190
# The kernel would send files past the worker's bound for clients that do not read.
sendfile = False
# A pool filled before the fork would be shared by the children.
preload_app = False
# A heartbeat file on a disk can stall a worker while the disk is busy.
worker_tmp_dir = "/dev/shm"  # noqa: S108


def post_worker_init(worker: Any) -> None:
    """Open the connections that each web process is to start with."""
    from poolhouse.process.pools import warm_up

    warm_up()
