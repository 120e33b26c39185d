"""The signals of Celery: each task's database use is counted and logged like a request's. It needs Celery."""

from dataclasses import dataclass, field
from typing import Any

from celery import Task, current_app, signals

from poolhouse.process.forks import log_messages, pools_in_prefork
from poolhouse.tracing.log_lines import log_cost, log_database_error
from poolhouse.tracing.work import Work, current_work, switch_to


@dataclass(slots=True, kw_only=True)
class TaskWork(Work):
    """A task as the work of its thread."""

    task_id: str
    outer: Work | None = field(default=None, repr=False)
    """the work that it interrupts: a request or another task, where tasks run eagerly"""


def follow_tasks() -> None:
    """Connect to Celery's signals, in workers and for tasks that run eagerly."""
    signals.task_prerun.connect(_begin, weak=False, dispatch_uid="poolhouse.begin_task")
    signals.task_postrun.connect(_end, weak=False, dispatch_uid="poolhouse.end_task")
    signals.task_failure.connect(_note_failure, weak=False, dispatch_uid="poolhouse.note_failure")
    signals.task_retry.connect(_note_retry, weak=False, dispatch_uid="poolhouse.note_retry")
    signals.worker_init.connect(_look_at_pool, weak=False, dispatch_uid="poolhouse.look_at_pool")


def is_prefork() -> bool:
    """Return True if the project has a Celery app whose workers fork by default."""
    return current_app.main != "default" and "prefork" in str(
        current_app.conf.worker_pool
    )  # "default": the project has none


def _look_at_pool(*, sender: Any, **_: Any) -> None:
    """Receive Celery's `worker_init`, in the worker's main process, before it forks."""
    pool = sender.pool_cls  # a name or, if the command line names it, the class
    if "prefork" in (pool if isinstance(pool, str) else pool.__module__):
        log_messages(pools_in_prefork())


def _begin(*, task_id: str, task: "Task[Any, Any]", **_: Any) -> None:
    work = TaskWork("task", f"{task.name}[{task_id}]", task_id=task_id)
    work.outer = switch_to(work)


def _end(*, task_id: str, **_: Any) -> None:
    work = current_work()
    if isinstance(work, TaskWork) and work.task_id == task_id:
        switch_to(work.outer)
        log_cost(work)


def _note_failure(*, exception: BaseException, **_: Any) -> None:
    log_database_error(exception, current_work())


def _note_retry(*, reason: BaseException, **_: Any) -> None:
    """Log why a task is retried: the error passed to `retry`, or the one being handled when it was called."""
    error = getattr(reason, "exc", None) or reason.__cause__ or reason.__context__
    log_database_error(error, current_work())
