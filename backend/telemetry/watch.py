"""A job's progress, as it happens, for people."""

import time
from collections.abc import Iterator

from django.core.management.base import CommandError
from rich.console import Console
from rich.progress import BarColumn, MofNCompleteColumn, Progress, TextColumn, TimeRemainingColumn

from telemetry.queries import Progress as JobProgress
from telemetry.queries import job_progress

POLL_INTERVAL_S = 0.2
LINE_INTERVAL_S = 5.0
STALLED_S = 10.0


def watch_job(job_id: int, console: Console) -> bool:
    """Show a job's progress until it is over, then a summary; True if every batch was loaded.

    On a terminal it draws a bar; elsewhere it prints a line every few seconds.
    """
    progress = (_draw_bar if console.is_terminal else _print_lines)(job_id, console)
    console.print(summarise(progress))
    return progress.state == "done"


def summarise(progress: JobProgress) -> str:
    """Say in a line what became of a job that is over."""
    elapsed_s = progress.elapsed_s or 0.0
    rate = f", {progress.inserted / elapsed_s:,.0f} readings/s" if progress.inserted and elapsed_s else ""
    updated = f"{progress.updated:,} updated, " if progress.updated else ""
    given_up = progress.failed + progress.cancelled
    return (
        f"job {progress.job_id} {progress.state} in {elapsed_s:.1f} s: {progress.inserted:,} readings inserted{rate}, "
        f"{updated}{progress.skipped:,} skipped as duplicates; {progress.rejected:,} of {progress.rows:,} rows "
        f"rejected, {given_up} of {progress.batches} batches given up"
    )


def _follow(job_id: int, console: Console) -> Iterator[JobProgress]:
    """Look at a job again and again until it is over; say so once if nothing comes of it."""
    seen, moved_at = -1, time.monotonic()
    while True:
        progress = job_progress(job_id)
        if progress is None:
            raise CommandError(f"job {job_id} was deleted while it was being watched")
        yield progress
        if progress.is_over:
            return
        if progress.rows_done != seen:
            seen, moved_at = progress.rows_done, time.monotonic()
        elif moved_at and time.monotonic() - moved_at > STALLED_S:
            console.print(
                f"No batch was finished for {STALLED_S:.0f} s. Is a worker running? manage.py db_pool_status shows."
            )
            moved_at = 0.0
        time.sleep(POLL_INTERVAL_S)


def _draw_bar(job_id: int, console: Console) -> JobProgress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(),
        MofNCompleteColumn(),
        TextColumn("rows  {task.fields[rate]:>9,.0f} rows/s"),
        TimeRemainingColumn(),
        console=console,
    )
    begun = time.monotonic()
    with bar:
        task = bar.add_task(f"job {job_id}", total=None, rate=0)
        for progress in _follow(job_id, console):
            rate = progress.rows_done / max(time.monotonic() - begun, POLL_INTERVAL_S)
            bar.update(task, total=progress.rows, completed=progress.rows_done, rate=rate)
    return progress


def _print_lines(job_id: int, console: Console) -> JobProgress:
    begun = time.monotonic()
    printed = begun - LINE_INTERVAL_S + 1  # the first line comes after a second
    for progress in _follow(job_id, console):
        now = time.monotonic()
        if now - printed >= LINE_INTERVAL_S:
            printed = now
            console.print(
                f"job {job_id}: {progress.rows_done:,} of {progress.rows:,} rows, "
                f"{progress.rows_done / (now - begun):,.0f} rows/s"
            )
    return progress
