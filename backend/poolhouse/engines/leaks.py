"""Leak suspects: connections that are held for too long are logged once, with the code that checked them out."""

import logging
import traceback
from collections.abc import Iterable
from dataclasses import dataclass

from poolhouse.engines.lease import Frames, Lease, line_of
from poolhouse.tracing.code import is_own_code
from poolhouse.tracing.sql import without_values

logger = logging.getLogger(__name__)


@dataclass(frozen=True)
class Suspect:
    """A connection that is held for longer than the leak threshold."""

    holder: str
    """the request or task, and the thread"""
    held_s: float
    taken_at: str
    """file, line and function of the project's code that checked it out; empty if unknown"""
    last_statement: str
    """without its values"""


def look_for_leaks(alias: str, leases: Iterable[Lease], threshold_s: float) -> None:
    """Log each connection that is held for longer than the threshold, once."""
    for lease in leases:
        if not lease.is_suspect and lease.held_s() > threshold_s:
            lease.is_suspect = True
            suspect = _suspect(lease)
            logger.warning(
                "%s: leak suspect: connection held for %.1f s (threshold %g s) by %s; checked out at %s; "
                "last statement: %s\n%s",
                alias,
                suspect.held_s,
                threshold_s,
                suspect.holder,
                suspect.taken_at or "unknown",
                suspect.last_statement or "none",
                _stack(lease.frames),
            )


def note_return(alias: str, lease: Lease) -> None:
    """Log that a leak suspect was checked in."""
    logger.warning("%s: leak suspect checked in after %.1f s by %s", alias, lease.held_s(), lease.holder)


def suspects_among(leases: Iterable[Lease]) -> tuple[Suspect, ...]:
    """Return the leak suspects, the longest held first."""
    return tuple(sorted((_suspect(lease) for lease in leases if lease.is_suspect), key=lambda one: -one.held_s))


def _suspect(lease: Lease) -> Suspect:
    place = next(((code, at) for code, at in lease.frames if is_own_code(code.co_filename)), None)
    taken_at = f"{place[0].co_filename}:{line_of(*place)} in {place[0].co_qualname}" if place else ""
    return Suspect(lease.holder, lease.held_s(), taken_at, without_values(lease.last_statement))


def _stack(frames: Frames) -> str:
    """Format the stack like a traceback, outermost frame first."""
    summary = [
        traceback.FrameSummary(code.co_filename, line_of(code, at), code.co_name) for code, at in reversed(frames)
    ]
    return "".join(traceback.format_list(summary)).rstrip()
