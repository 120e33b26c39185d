"""The report of a run: the counts of rows, the unfinished batches and why, and the history of each problem."""

import re
from collections import Counter
from collections.abc import Iterable, Iterator
from dataclasses import asdict
from typing import Any

from rich.console import Console

from lab.chaos.checker import Problem
from lab.chaos.found import CANCELLED, Batch
from lab.chaos.history import History
from lab.chaos.phase import Result
from lab.chaos.spools import LOCATION
from poolhouse.display.table import Table

EXPLAINED = 3
REASON_LENGTH = 110
PROCESS = re.compile(r"\w+@\S+:\d+")
"""names of worker processes, which are removed so that the same reason from two processes is counted once"""
COUNTS = {
    "sent": "rows of acknowledged uploads",
    "loaded": "loaded once",
    "rejected": "rejected with their reason",
    "waiting": "in unfinished batches with a reason",
    "lost": "lost",
}


def print_report(results: dict[str, Result], missing: dict[str, str], repeat: str, console: Console) -> None:
    """Print the report, with the verdict at the end.

    Args:
        results: the results by phase.
        missing: what was not available, and why.
        repeat: the command that repeats the schedule.
        console: where to print.
    """
    _print_counts(results, console)
    _print_faults(results, console)
    for phase, result in results.items():
        _print_waiting(phase, result, console)
    for phase, result in results.items():
        _print_problems(phase, result, console)
    for what, reason in missing.items():
        console.print(f"not available: {what}: {reason}", soft_wrap=True)
    count = sum(len(result.problems) for result in results.values())
    console.print(f"\nverdict: {f'{count} problems' if count else 'no acknowledged data was lost or loaded twice'}")
    console.print(f"to repeat: {repeat}", soft_wrap=True)


def _print_counts(results: dict[str, Result], console: Console) -> None:
    made = Table("", *(f"{phase}#" for phase in results))
    for name, label in COUNTS.items():
        made.add_row(label, *(f"{getattr(result.verdict.rows, name):,}" for result in results.values()))
    for outcome in ("acknowledged", "unknown", "refused"):
        counts = (result.verdict.uploads.get(outcome, 0) for result in results.values())
        made.add_row(f"uploads {outcome}", *(f"{count:,}" for count in counts))
    made.add_row("attempts of clients", *(f"{len(result.history.attempts):,}" for result in results.values()))
    loaded = (f"{result.verdict.indeterminate_rows:,}" for result in results.values())
    made.add_row("loaded rows of unknown uploads", *loaded)
    made.add_row("cancels and retries", *(f"{len(result.history.acts):,}" for result in results.values()))
    console.print(made)


def _print_faults(results: dict[str, Result], console: Console) -> None:
    struck = [Counter(fault.kind for fault in result.history.faults) for result in results.values()]
    made = Table("faults", *(f"{phase}#" for phase in results))
    for kind in sorted({kind for counts in struck for kind in counts}):
        made.add_row(kind, *(f"{counts[kind]:,}" for counts in struck))
    console.print()
    console.print(made)


def _print_waiting(phase: str, result: Result, console: Console) -> None:
    moments = {"after the last fault": result.waiting, "after the retry of parked and cancelled jobs": result.left}
    for moment, batches in moments.items():
        if batches:
            made = Table(f"batches not done, {phase}, {moment}", "batches#", "rows#")
            for (state, reason), rows in _reasons(batches).items():
                made.add_row(f"{state}: {reason}"[:REASON_LENGTH], f"{len(rows):,}", f"{sum(rows):,}")
            console.print()
            console.print(made)


def _reasons(batches: Iterable[Batch]) -> dict[tuple[str, str], list[int]]:
    reasons: dict[tuple[str, str], list[int]] = {}
    for batch in batches:
        error = batch.error.replace(batch.location.removeprefix(LOCATION), "…").replace(batch.file_name, "…")
        error = PROCESS.sub("…", error)
        reason = error or ("cancelled by the operator" if batch.state == CANCELLED else "no reason")
        reasons.setdefault((batch.state, reason[:REASON_LENGTH]), []).append(batch.rows)
    return reasons


def _print_problems(phase: str, result: Result, console: Console) -> None:
    if not result.problems:
        return
    made = Table(f"problems, {phase}", "count#", "first example")
    by_rule: dict[str, list[Problem]] = {}
    for problem in result.problems:
        by_rule.setdefault(problem.rule, []).append(problem)
    for rule, problems in by_rule.items():
        made.add_row(rule, f"{len(problems):,}", f"{problems[0].subject}: {problems[0].detail}")
    console.print()
    console.print(made)
    for rule, problems in by_rule.items():
        for name in list(dict.fromkeys(problem.subject for problem in problems))[:EXPLAINED]:
            console.print(f"\n{rule}: history of {name}")
            for line in explain(result.history, name):
                console.print(f"  {line}", soft_wrap=True)


def explain(history: History, name: str) -> Iterator[str]:
    """Return the history of an upload: its attempts, cancels and retries of its jobs, and faults meanwhile."""
    attempts = [attempt for attempt in history.attempts if attempt.upload == name]
    if not attempts:
        return
    jobs = {attempt.job_id for attempt in attempts}
    first_s, last_s = attempts[0].begun_s, max(attempt.ended_s for attempt in attempts)
    events = [
        (attempt.begun_s, f"sent, for {attempt.ended_s - attempt.begun_s:.1f} s: {attempt.detail}")
        for attempt in attempts
    ]
    events += [(act.at_s, f"{act.action} of job {act.job_id}") for act in history.acts if act.job_id in jobs]
    for fault in history.faults:
        if (fault.ended_s or fault.begun_s) >= first_s - 1 and fault.begun_s <= last_s + 10:
            lasted = f", for {fault.ended_s - fault.begun_s:.1f} s" if fault.ended_s else ""
            events.append((fault.begun_s, f"fault: {fault.kind} ({fault.detail}){lasted}"))
    for at_s, text in sorted(events):
        yield f"{at_s - first_s:+6.1f} s {text}"


def document(result: Result) -> dict[str, Any]:
    """Return the result of a phase as JSON data, with its whole history."""
    return {
        "rows": asdict(result.verdict.rows),
        "uploads": result.verdict.uploads,
        "indeterminate_rows": result.verdict.indeterminate_rows,
        "duration_s": round(result.duration_s, 1),
        "waiting": [asdict(batch) for batch in result.waiting],
        "left": [asdict(batch) for batch in result.left],
        "problems": [asdict(problem) for problem in result.problems],
        "history": result.history.document(),
    }
