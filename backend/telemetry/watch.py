"""Showing the progress of a job while it runs."""

import time
from collections import deque
from collections.abc import Iterator

from django.core.management.base import CommandError
from django.db import Error as DatabaseError
from django.db import connection
from rich.console import Console
from rich.progress import BarColumn, Progress, TaskProgressColumn, TextColumn

from poolhouse.display.reasons import message_of
from telemetry.queries import Progress as JobProgress
from telemetry.queries import job_progress

POLL_INTERVAL_S = 0.2
LINE_INTERVAL_S = 5.0
FIRST_LINE_S = 1.0
STALLED_S = 10.0
PACE_WINDOW_S = 5.0
REFUSED_MAX_S = 300.0
BAR_COLUMNS = 20
# The columns of a line that the bar, the percentage and the gaps between the parts take.
BESIDE_PACE_COLUMNS = BAR_COLUMNS + len("100%") + 3


def watch_job(job_id: int, console: Console) -> bool:
    """Show a job's progress until it is over, then a summary; return True if all batches were loaded.

    On a terminal, draw a bar; otherwise print a line every LINE_INTERVAL_S.
    """
    progress = (_draw_bar if console.is_terminal else _print_lines)(job_id, console)
    console.print(summarise(progress))
    return progress.state == "done"


def summarise(progress: JobProgress) -> str:
    """Return a one-line summary of a job that is over."""
    elapsed_s = progress.elapsed_s or 0.0
    rate = f", {progress.inserted / elapsed_s:,.0f} readings/s" if progress.inserted and elapsed_s else ""
    updated = f"{progress.updated:,} updated, " if progress.updated else ""
    cancelled = f", {progress.cancelled:,} cancelled" if progress.cancelled else ""
    return (
        f"job {progress.job_id} {progress.state} in {elapsed_s:.1f} s: {progress.inserted:,} readings inserted{rate}, "
        f"{updated}{progress.skipped:,} skipped as duplicates; {_rounded(progress.rounded)}{progress.rejected:,} of "
        f"{progress.rows:,} rows rejected, {progress.parked:,} of {progress.batches:,} batches parked{cancelled}"
    )


def _rounded(count: int) -> str:
    if not count:
        return ""
    readings = "reading" if count == 1 else "readings"
    return f"{count:,} {readings} dropped for having the same time as another after rounding to microseconds; "


def _follow(job_id: int, console: Console) -> Iterator[JobProgress]:
    """Yield a job's progress until it is over; print a message once if no batch finishes for STALLED_S."""
    reader = ProgressReader(job_id, console)
    seen, moved_at = -1, time.monotonic()
    while True:
        progress = reader.read()
        if progress is None:
            raise CommandError(f"job {job_id} was deleted")
        yield progress
        if progress.is_over:
            return
        # A batch that is loaded in several transactions has readings before it is finished.
        moved = progress.rows_done + progress.inserted + progress.updated + progress.skipped
        if moved != seen:
            seen, moved_at = moved, time.monotonic()
        elif moved_at and time.monotonic() - moved_at > STALLED_S:
            console.print(
                f"No batch was finished for {STALLED_S:.0f} s. Check with manage.py db_pool_status that a worker is "
                "running."
            )
            moved_at = 0.0
        time.sleep(POLL_INTERVAL_S)


class ProgressReader:
    """Reads a job's progress, and repeats the query while the database is not available."""

    def __init__(self, job_id: int, console: Console) -> None:
        self._job_id, self._console = job_id, console
        self._refused_at: float | None = None

    def read(self) -> JobProgress | None:
        """Return the job's progress, or None if the job does not exist.

        Raises:
            django.db.Error: queries have failed for REFUSED_MAX_S.
        """
        while True:
            try:
                progress = job_progress(self._job_id)
            except DatabaseError as error:
                self._wait(error)
            else:
                self._refused_at = None
                return progress

    def _wait(self, error: DatabaseError) -> None:
        if self._refused_at is None:
            self._refused_at = time.monotonic()
            self._console.print(
                f"Cannot query the database: {message_of(error)}. The job goes on; trying again for up to "
                f"{REFUSED_MAX_S:.0f} s."
            )
        elif time.monotonic() - self._refused_at > REFUSED_MAX_S:
            raise error
        connection.close()
        time.sleep(POLL_INTERVAL_S)


class Pace:
    """The rate of a job in rows per second, over the last seconds and overall."""

    def __init__(self) -> None:
        self._seen: deque[tuple[float, int]] = deque()
        self._first: tuple[float, int] | None = None

    def note(self, rows_done: int, now_s: float) -> None:
        """Add an observation of the progress."""
        self._first = self._first or (now_s, rows_done)
        self._seen.append((now_s, rows_done))
        while len(self._seen) > 2 and now_s - self._seen[0][0] > PACE_WINDOW_S:
            self._seen.popleft()

    @property
    def rows_per_s_now(self) -> float:
        """The rate over the last PACE_WINDOW_S."""
        return _rate(self._seen[0], self._seen[-1]) if self._seen else 0.0

    @property
    def rows_per_s(self) -> float:
        """The rate since the first observation."""
        return _rate(self._first, self._seen[-1]) if self._first else 0.0

    def remaining_s(self, rows_left: int) -> float | None:
        """Return the seconds that the rest takes at the overall rate, or None while the rate is 0."""
        return rows_left / self.rows_per_s if self.rows_per_s else None


def _rate(begin: tuple[float, int], end: tuple[float, int]) -> float:
    seconds = end[0] - begin[0]
    return (end[1] - begin[1]) / seconds if seconds > 0 else 0.0


def describe(progress: JobProgress, pace: Pace, columns: int | None = None) -> str:
    """Return a job's progress as text, the most useful parts first, as many as fit into `columns` (None: all)."""
    over = progress.done + progress.parked + progress.cancelled
    remaining_s = pace.remaining_s(progress.rows - progress.rows_done)
    eta = f"{remaining_s:,.0f} s left" if remaining_s is not None else "time left unknown"
    parts = [
        f"{over:,} of {progress.batches:,} batches",
        eta,
        f"{progress.rejected:,} rejected",
        f"{pace.rows_per_s_now:,.0f} rows/s now",
        f"{pace.rows_per_s:,.0f} overall",
    ]
    while columns is not None and parts and len(", ".join(parts)) > columns:
        parts.pop()
    return ", ".join(parts)


def _draw_bar(job_id: int, console: Console) -> JobProgress:
    bar = Progress(
        TextColumn("{task.description}"),
        BarColumn(BAR_COLUMNS),
        TaskProgressColumn(),
        TextColumn("{task.fields[pace]}"),
        console=console,
    )
    pace, title = Pace(), f"job {job_id}"
    with bar:
        task = bar.add_task(title, total=None, pace="")
        for progress in _follow(job_id, console):
            pace.note(progress.rows_done, time.monotonic())
            described = describe(progress, pace, console.width - len(title) - BESIDE_PACE_COLUMNS)
            bar.update(task, total=progress.rows, completed=progress.rows_done, pace=described)
    return progress


def _print_lines(job_id: int, console: Console) -> JobProgress:
    pace = Pace()
    printed = time.monotonic() - LINE_INTERVAL_S + FIRST_LINE_S
    for progress in _follow(job_id, console):
        now = time.monotonic()
        pace.note(progress.rows_done, now)
        if now - printed >= LINE_INTERVAL_S:
            printed = now
            console.print(
                f"job {job_id}: {progress.rows_done:,} of {progress.rows:,} rows, {describe(progress, pace)}",
                soft_wrap=True,
            )
    return progress
