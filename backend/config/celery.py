"""The Celery application: how tasks are sent and delivered. The worker defines the tasks, telemetry their names."""

import sys

from celery import Celery

from config.env import Ingest, Queue, read

BROKER_TIMEOUT_S = 10
HARD_LIMIT_GRACE_S = 30

app = Celery("poolhouse")
app.conf.update(
    broker_url=read(Queue).url,
    broker_connection_retry_on_startup=True,
    # A task that runs longer than the visibility timeout would be delivered a second time.
    broker_transport_options={
        "visibility_timeout": 2 * (read(Ingest).ingest_time_limit_s + HARD_LIMIT_GRACE_S),
        "socket_connect_timeout": BROKER_TIMEOUT_S,
        "socket_timeout": BROKER_TIMEOUT_S,
    },
    # The soft limit raises in the task, which records it; the hard limit kills a process that does not react.
    task_soft_time_limit=read(Ingest).ingest_time_limit_s,
    task_time_limit=read(Ingest).ingest_time_limit_s + HARD_LIMIT_GRACE_S,
    # The ledger decides: a task is acknowledged only after its batch is recorded as done, and none is prefetched.
    task_acks_late=True,
    task_reject_on_worker_lost=True,
    worker_prefetch_multiplier=1,
    worker_concurrency=read(Queue).worker_processes,
    task_ignore_result=True,
    # Celery would close the connection before and after each task; worker.connections applies CONN_MAX_AGE instead.
    CELERY_DB_REUSE_MAX=sys.maxsize,
    task_serializer="json",
    accept_content=["json"],
    task_default_queue="default",
    worker_hijack_root_logger=False,
)
