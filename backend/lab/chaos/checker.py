"""Was anything lost, loaded twice or left without a reason? A pure function of the history and the final state."""

from collections import Counter, defaultdict
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from typing import Any

from lab.chaos.found import CANCELLED, DONE, PARKED, Batch, Found, Reject
from lab.chaos.history import Attempt, History, Outcome
from lab.chaos.payload import Upload
from lab.chaos.spools import LOCATION

INPUTS, REJECTS = f"{LOCATION}files/", f"{LOCATION}rejects/"
SHOWN = 5
"""the number of examples in a text"""


@dataclass(frozen=True)
class Problem:
    """A violation of a rule."""

    rule: str
    subject: str
    """the name of the upload, or the file in the spool"""
    detail: str
    batch_id: int | None = None


@dataclass(frozen=True)
class Counts:
    """The rows of the acknowledged uploads; the first number is the sum of the others."""

    sent: int = 0
    loaded: int = 0
    rejected: int = 0
    waiting: int = 0
    lost: int = 0

    def __add__(self, other: "Counts") -> "Counts":
        return Counts(*(a + b for a, b in zip(self._all(), other._all(), strict=True)))

    def _all(self) -> tuple[int, ...]:
        return (self.sent, self.loaded, self.rejected, self.waiting, self.lost)


@dataclass(frozen=True)
class Verdict:
    """The result of the checker."""

    rows: Counts
    uploads: dict[str, int]
    """their number by outcome"""
    indeterminate_rows: int
    """loaded rows of uploads that were not acknowledged, which is allowed"""
    problems: list[Problem]


def has_input(batch: Batch, spooled: frozenset[str]) -> bool:
    """Return True if a batch can still be loaded; files outside the spool are kept by their clients."""
    return not batch.location.startswith(LOCATION) or batch.location in spooled


@dataclass(frozen=True)
class Case:
    """An upload, and everything that is known about it."""

    upload: Upload
    outcome: Outcome
    attempts: Sequence[Attempt] = ()
    batches: Sequence[Batch] = ()
    loaded: frozenset[int] = frozenset()
    altered: Sequence[str] = ()
    rejects: dict[int, list[Reject]] = field(default_factory=dict)
    spooled: frozenset[str] = frozenset()

    @cached_property
    def jobs(self) -> dict[int, list[Batch]]:
        """The batches by job."""
        return _grouped(self.batches, lambda batch: batch.job_id)

    @cached_property
    def acknowledged(self) -> list[int]:
        """The jobs that were acknowledged to its client."""
        return list(dict.fromkeys(attempt.job_id for attempt in self.attempts if attempt.job_id is not None))

    @cached_property
    def rows(self) -> Counts:
        """The counts of its rows."""
        own = [batch for job_id in self.acknowledged for batch in self.jobs.get(job_id, ())]
        rejected = {reject.line for job_id in self.acknowledged for reject in self.rejects.get(job_id, ())}
        loaded_count = len(self.upload.good & self.loaded)
        rejected_count = len(self.upload.bad_lines.keys() & rejected)
        missing = self.upload.rows - loaded_count - rejected_count
        able = (batch.rows for batch in own if batch.state != DONE and has_input(batch, self.spooled))
        waiting = min(missing, sum(able))
        return Counts(self.upload.rows, loaded_count, rejected_count, waiting, missing - waiting)

    @property
    def may_repeat(self) -> bool:
        """Return True if several attempts may create several jobs, because the client sends no idempotency key."""
        return self.upload.name.startswith("cli") and len(self.attempts) > 1


def check(history: History, found: Found) -> Verdict:
    """Compare what was sent and acknowledged with the final state."""
    cases = list(_cases(history, found))
    problems = [problem for case in cases for rule in CASE_RULES for problem in rule(case)]
    problems += [*_strangers(history, found), *_orphans(found), *_unreadable(found)]
    acknowledged = [case for case in cases if case.outcome is Outcome.ACKNOWLEDGED]
    return Verdict(
        rows=sum((case.rows for case in acknowledged), Counts()),
        uploads=dict(Counter(str(case.outcome) for case in cases)),
        indeterminate_rows=sum(len(case.loaded) for case in cases if case.outcome is Outcome.UNKNOWN),
        problems=problems,
    )


def check_waiting(
    history: History, batches: Iterable[Batch], spooled: frozenset[str], *, max_attempts: int
) -> list[Problem]:
    """Return the batches that are not done although they could be, or that give no valid reason.

    Args:
        history: what happened.
        batches: the batches of the ledger.
        spooled: the files in the spool.
        max_attempts: INGEST_MAX_ATTEMPTS during the run.
    """
    cancelled = set(history.jobs_asked("cancel"))
    kills_s = [fault.begun_s for fault in history.faults if "worker" in fault.kind]
    problems = []
    for batch in batches:
        if batch.state == DONE:
            continue
        if not has_input(batch, spooled):
            problems.append(_of_batch("input deleted", batch, f"{batch.location} is not in the spool: {batch.error}"))
        elif batch.state == CANCELLED:
            if batch.job_id not in cancelled:
                problems.append(
                    _of_batch(
                        "waits without a reason", batch, "it is cancelled, but the operator did not cancel its job"
                    )
                )
        elif not batch.error:
            problems.append(_of_batch("waits without a reason", batch, "its error is empty"))
        elif batch.state == PARKED:
            problems += _parked(batch, kills_s, max_attempts)
    return problems


def _parked(batch: Batch, kills_s: Sequence[float], max_attempts: int) -> Iterator[Problem]:
    """Every file can be loaded and every fault ends, so only repeated kills of its worker may park a batch."""
    if "was killed" not in batch.error:
        yield _of_batch("parked for a passing fault", batch, batch.error)
        return
    end_s = batch.finished_s or float("inf")
    kills = sum(batch.created_s <= kill_s <= end_s for kill_s in kills_s)
    if kills < max_attempts:
        detail = f"only {kills} worker processes were killed since its job began: {batch.error}"
        yield _of_batch("false reason", batch, detail)


def _of_batch(rule: str, batch: Batch, detail: str) -> Problem:
    text = f"batch {batch.batch_id} of job {batch.job_id}, {batch.state}: {detail}"
    return Problem(rule, batch.upload, text, batch.batch_id)


def _cases(history: History, found: Found) -> Iterator[Case]:
    outcomes = history.outcomes()
    attempts = _grouped(history.attempts, lambda attempt: attempt.upload)
    batches = _grouped(found.batches, lambda batch: batch.upload)
    for name, upload in history.uploads.items():
        own = batches.get(name, [])
        yield Case(
            upload,
            outcomes[name],
            attempts.get(name, []),
            own,
            found.readings.get(name, frozenset()),
            found.altered.get(name, []),
            {batch.job_id: found.rejects.get(batch.job_id, []) for batch in own},
            found.spooled,
        )


def _grouped(items: Iterable[Any], key: Callable[[Any], Any]) -> dict[Any, list[Any]]:
    groups: dict[Any, list[Any]] = defaultdict(list)
    for item in items:
        groups[key(item)].append(item)
    return dict(groups)


def _lost(case: Case) -> Iterator[Problem]:
    """An acknowledged row is loaded, rejected, or in an unfinished batch that still has its input."""
    if case.outcome is not Outcome.ACKNOWLEDGED:
        return
    for job_id in case.acknowledged:
        if job_id not in case.jobs:
            yield Problem("lost", case.upload.name, f"job {job_id} was acknowledged, but is not in the ledger")
    if case.rows.lost:
        missing = sorted(case.upload.good - case.loaded)
        detail = f"{case.rows.lost} of {case.upload.rows} rows are missing; not loaded: {_some(missing)}"
        yield Problem("lost", case.upload.name, detail)


def _not_sent(case: Case) -> Iterator[Problem]:
    """A reading equals one of the rows that were sent."""
    if foreign := sorted(case.loaded - case.upload.good):
        yield Problem("not sent", case.upload.name, f"readings that equal no valid row of it: {_some(foreign)}")
    if case.altered:
        yield Problem("not sent", case.upload.name, f"readings with another value or time: {_some(case.altered)}")


def _refused(case: Case) -> Iterator[Problem]:
    """Every upload can be loaded, so none may be refused; and a refused upload is not loaded."""
    if case.outcome is Outcome.REFUSED:
        yield Problem("refused", case.upload.name, case.attempts[-1].detail)
        if case.loaded:
            yield Problem("refused and loaded", case.upload.name, f"{len(case.loaded)} rows")


def _doubled(case: Case) -> Iterator[Problem]:
    """A row is loaded once, and the ledger counts it once."""
    name = case.upload.name
    if not case.may_repeat:
        if len(jobs := sorted({*case.jobs, *case.acknowledged})) > 1:
            yield Problem("doubled", name, f"one upload has several jobs: {_some(jobs)}")
        elif skipped := sum(batch.skipped for batch in case.batches):
            yield Problem("doubled", name, f"{skipped} readings were already loaded before")
    inserted = sum(batch.inserted for batch in case.batches if batch.state == DONE)
    if inserted != len(case.loaded) + len(case.altered):
        detail = f"the ledger counts {inserted} readings, the hypertable has {len(case.loaded) + len(case.altered)}"
        yield Problem("ledger", name, detail)


def _ledger(case: Case) -> Iterator[Problem]:
    """The counts of a finished job add up to the file."""
    expected = (case.upload.rows, len(case.upload.good), len(case.upload.bad))
    for job_id, batches in case.jobs.items():
        if any(batch.state != DONE for batch in batches):
            continue
        sums = (
            sum(batch.rows for batch in batches),
            sum(batch.inserted + batch.skipped for batch in batches),
            sum(batch.rejected for batch in batches),
        )
        if sums != expected:
            detail = f"job {job_id} is done with rows, readings and rejects {sums}, expected {expected}"
            yield Problem("ledger", case.upload.name, detail)


def _rejects(case: Case) -> Iterator[Problem]:
    """Each rejected row is listed once with its line and text, and all of them when the job is done."""
    expected = case.upload.bad_lines
    for job_id, batches in case.jobs.items():
        listed = case.rejects.get(job_id, [])
        times = Counter(reject.line for reject in listed)
        if twice := sorted(line for line, count in times.items() if count > 1):
            yield Problem("rejects", case.upload.name, f"job {job_id} lists lines more than once: {_some(twice)}")
        if wrong := [reject for reject in listed if expected.get(reject.line) != reject.raw]:
            yield Problem(
                "rejects", case.upload.name, f"job {job_id} lists lines that differ from the file: {_some(wrong)}"
            )
        if all(batch.state == DONE for batch in batches) and (missing := sorted(expected.keys() - times.keys())):
            yield Problem("rejects", case.upload.name, f"job {job_id} does not list lines {_some(missing)}")


CASE_RULES: tuple[Callable[[Case], Iterator[Problem]], ...] = (_lost, _not_sent, _refused, _doubled, _ledger, _rejects)


def _strangers(history: History, found: Found) -> Iterator[Problem]:
    """Every series and batch belongs to an upload."""
    devices = found.readings.keys() | found.altered.keys() | {batch.upload for batch in found.batches}
    for name in sorted(devices - history.uploads.keys()):
        yield Problem("not sent", name, "no client sent an upload of this name")


def _orphans(found: Found) -> Iterator[Problem]:
    """After `clean_spool`, the spool contains only inputs of unfinished batches and rejects of known jobs."""
    needed = {batch.location for batch in found.batches if batch.state != DONE}
    jobs = {str(batch.job_id) for batch in found.batches}
    for location in sorted(found.spooled):
        if location.startswith(REJECTS):
            if location.split("/")[-2] not in jobs:
                yield Problem("orphan", location, "rejects of a job that is not in the ledger")
        elif location not in needed:
            yield Problem("orphan", location, "no unfinished batch needs it")


def _unreadable(found: Found) -> Iterator[Problem]:
    """The rejects of every job can be read."""
    names = {batch.job_id: batch.upload for batch in found.batches}
    for job_id, reason in found.unreadable.items():
        yield Problem("rejects", names[job_id], f"the rejects of job {job_id} cannot be read: {reason}")


def _some(items: Sequence[object]) -> str:
    shown = ", ".join(map(str, items[:SHOWN]))
    return f"{shown} and {len(items) - SHOWN} more" if len(items) > SHOWN else shown
