"""The contents of the database, the spool and the reject files at the end."""

import http.client
import json
import urllib.request
from collections import defaultdict
from collections.abc import Iterable
from dataclasses import dataclass, field
from pathlib import PurePath

from lab.chaos.payload import BEGIN_S, DAY_S
from lab.chaos.system import System

QUEUED, DONE, PARKED, CANCELLED = "queued", "done", "parked", "cancelled"
HTTP_TIMEOUT_S = 60
COMMAND_PREFIX = "cli-"
"""the beginning of the names of uploads by command"""

BATCHES_SQL = """
    SELECT batch.id, batch.job_id, file.name, file.location, state, row_count,
           inserted_count, skipped_count, rejected_count, error,
           extract(epoch FROM job.created_at)::float8, extract(epoch FROM finished_at)::float8
    FROM ingest_batch batch JOIN ingest_file file ON file.id = file_id JOIN ingest_job job ON job.id = batch.job_id
    ORDER BY batch.id
"""
READINGS_SQL = """
    SELECT labels ->> 'device', array_agg(extract(epoch FROM time)::bigint ORDER BY time),
           array_agg(value ORDER BY time)
    FROM reading JOIN series ON series.id = series_id GROUP BY series_id, labels
"""


@dataclass(frozen=True)
class Batch:
    """A batch of the ledger."""

    batch_id: int
    job_id: int
    file_name: str
    location: str
    state: str
    rows: int
    inserted: int
    skipped: int
    rejected: int
    error: str
    created_s: float
    """when its job was created"""
    finished_s: float | None = None

    @property
    def upload(self) -> str:
        """The name of its upload."""
        return PurePath(self.file_name).name.partition(".")[0]


@dataclass(frozen=True)
class Reject:
    """A rejected row, as its job lists it."""

    line: int
    raw: str


@dataclass(frozen=True)
class Found:
    """The final state."""

    batches: tuple[Batch, ...]
    readings: dict[str, frozenset[int]]
    """the numbers of the loaded rows, by device"""
    altered: dict[str, list[str]] = field(default_factory=dict)
    """readings that differ from every row that was sent, by device"""
    rejects: dict[int, list[Reject]] = field(default_factory=dict)
    """by job"""
    unreadable: dict[int, str] = field(default_factory=dict)
    """jobs whose rejects cannot be read, and why"""
    spooled: frozenset[str] = frozenset()
    """the files in the spool after `clean_spool`"""


def batches_of(system: System) -> tuple[Batch, ...]:
    """Return the ledger's batches."""
    return tuple(Batch(*row) for row in system.query(BATCHES_SQL))


def read_back(system: System, token: str, spooled: frozenset[str]) -> Found:
    """Return the final state."""
    batches = batches_of(system)
    readings, altered = _readings(system)
    rejects: dict[int, list[Reject]] = {}
    unreadable: dict[int, str] = {}
    for job_id, upload in sorted({batch.job_id: batch.upload for batch in batches if batch.rejected}.items()):
        try:
            if upload.startswith(COMMAND_PREFIX):  # a job of the command line is not visible over HTTP
                rejects[job_id] = _rejects_by_command(system, job_id)
            else:
                rejects[job_id] = _rejects_over_http(f"{system.address}/api/jobs/{job_id}/rejects/", token)
        except (OSError, http.client.HTTPException, ValueError) as error:
            unreadable[job_id] = f"{type(error).__name__}: {error}"
    return Found(batches, readings, altered, rejects, unreadable, spooled)


def _readings(system: System) -> tuple[dict[str, frozenset[int]], dict[str, list[str]]]:
    """Read the hypertable; the number of a row is in its time and in its value."""
    numbers: dict[str, set[int]] = defaultdict(set)
    altered: dict[str, list[str]] = defaultdict(list)
    for device, times_s, values in system.query(READINGS_SQL):
        for time_s, value in zip(times_s, values, strict=True):
            if (time_s - BEGIN_S) % DAY_S == value:
                numbers[device].add(int(value))
            else:
                altered[device].append(f"{value:g} at {time_s} s")
    return {device: frozenset(found) for device, found in numbers.items()}, dict(altered)


def _rejects_by_command(system: System, job_id: int) -> list[Reject]:
    printed = system.manage("ingest_status", str(job_id), "--rejects", "--json")
    if printed.status:
        raise ValueError(printed.text)
    return _rejects_in(printed.text.splitlines())


def _rejects_over_http(address: str, token: str) -> list[Reject]:
    request = urllib.request.Request(address, headers={"Authorization": f"Bearer {token}"})  # noqa: S310 - our own address
    with urllib.request.urlopen(request, timeout=HTTP_TIMEOUT_S) as answer:  # noqa: S310 - our own address
        return _rejects_in(answer)


def _rejects_in(lines: Iterable[str | bytes]) -> list[Reject]:
    """Return the rejected rows, without the count of those that are not listed."""
    return [Reject(line["line"], line["raw"]) for line in map(json.loads, lines) if "line" in line]
