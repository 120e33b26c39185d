"""The schedule: the times of faults and the uploads of clients, derived from the seed alone."""

import random
from collections.abc import Iterator, Sequence
from dataclasses import dataclass

from lab.chaos.payload import BAD_CELLS, Upload

GAP_S = 4.0
"""the mean gap between two faults in a long run; in a short run it shrinks so that each kind occurs"""
LASTS_S = (0.5, 8.0)
CALM_SHARE = 0.1
"""the share of the time, at the beginning, without faults: first there must be load"""
DAYS = 3
ROWS = (50, 2500)
LARGE_ROWS, LARGE_SHARE = 20_000, 0.04
BATCH_ROWS = (200, 500, 2000)
BAD_SHARE = 0.4
"""the share of uploads with bad rows"""
LONGEST_PAUSE_S = 1.5
BREAKS_OFF_SHARE = 0.2
"""the share of uploads whose first attempt is aborted"""
SPOOL_SHARE = 0.4
"""the share of the command's uncompressed files that are copied to the spool"""
CANCEL_SHARE = 0.6
"""the share of cancels among the operator's requests; the others are retries"""


@dataclass(frozen=True)
class Strike:
    """A scheduled fault."""

    at_s: float
    """since the start of the load"""
    kind: str
    lasts_s: float
    chance: float
    """0 to 1: selects a victim or a variant"""


@dataclass(frozen=True)
class Order:
    """A scheduled request of the operator."""

    pause_s: float
    action: str
    """cancel or retry"""
    chance: float
    """0 to 1: selects a job"""


def chance_of(seed: int, *purpose: object) -> random.Random:
    """Return a random generator for one purpose, independent of all other purposes."""
    return random.Random(" ".join(map(str, (seed, *purpose))))  # noqa: S311 - an order, the same each time


def strikes(seed: int, kinds: Sequence[str], duration_s: float) -> list[Strike]:
    """Return the scheduled faults: every kind once before any is repeated, in another order each time."""
    chance = chance_of(seed, "strikes", *kinds)
    gap_s = min(GAP_S, (1 - CALM_SHARE) * duration_s / (len(kinds) + 1))
    longest_s = max(LASTS_S[0], min(LASTS_S[1], duration_s / 5))
    planned: list[Strike] = []
    if not kinds:
        return planned
    at_s = CALM_SHARE * duration_s
    while True:
        for kind in chance.sample(kinds, len(kinds)):
            if at_s >= duration_s:
                return planned
            planned.append(
                Strike(round(at_s, 3), kind, round(chance.uniform(LASTS_S[0], longest_s), 3), chance.random())
            )
            at_s += gap_s * chance.uniform(0.5, 1.5)


def http_uploads(seed: int, client: str) -> Iterator[Upload]:
    """Yield the uploads of a client over HTTP, without end."""
    chance = chance_of(seed, client)
    for number in _numbers():
        format_ = chance.choice(("csv", "csv", "ndjson"))
        yield _upload(chance, f"{client}-{number}", format_, chance.choice(("", "gzip", "zstd")), longest_break_s=0.3)


def command_uploads(seed: int, client: str) -> Iterator[Upload]:
    """Yield the uploads of a client of `enqueue_ingest`, without end."""
    chance = chance_of(seed, client)
    for number in _numbers():
        compression = chance.choice(("", "gzip", "zstd"))
        into_spool = bool(compression) or chance.random() < SPOOL_SHARE
        # The command needs a second or more to start.
        yield _upload(chance, f"{client}-{number}", "csv", compression, longest_break_s=4, into_spool=into_spool)


def orders(seed: int) -> Iterator[Order]:
    """Yield the requests of the operator, without end."""
    chance = chance_of(seed, "orders")
    while True:
        action = "cancel" if chance.random() < CANCEL_SHARE else "retry"
        yield Order(round(chance.uniform(0.5, 6), 3), action, chance.random())


def _numbers() -> Iterator[int]:
    number = 0
    while True:
        yield number
        number += 1


def _upload(  # noqa: PLR0913 - all but three by name
    chance: random.Random,
    name: str,
    format_: str,
    compression: str,
    *,
    longest_break_s: float,
    into_spool: bool = False,
) -> Upload:
    rows = LARGE_ROWS if chance.random() < LARGE_SHARE else chance.randint(*ROWS)
    bad_count = chance.randint(1, 5) if chance.random() < BAD_SHARE else 0
    # Never the first row: a file whose beginning cannot be read is refused.
    bad = tuple((row, chance.choice(sorted(BAD_CELLS))) for row in sorted(chance.sample(range(1, rows), bad_count)))
    breaks_off = chance.random() < BREAKS_OFF_SHARE
    return Upload(
        name=name,
        day=chance.randrange(DAYS),
        rows=rows,
        bad=bad,
        format=format_,
        compression=compression,
        batch_rows=chance.choice(BATCH_ROWS),
        pause_s=round(chance.uniform(0, LONGEST_PAUSE_S), 3),
        into_spool=into_spool,
        breaks_off_s=round(chance.uniform(0, longest_break_s), 3) if breaks_off else None,
    )
