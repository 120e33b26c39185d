"""The published data on the strategies is consistent, and the guide quotes its spread correctly."""

import re
from statistics import median, quantiles

import pytest

from config.env import CHECKOUT
from lab.matrix import Journal
from lab.summary import Row, rows

JOURNAL = CHECKOUT / "docs/lab/strategies.jsonl.gz"
SPREAD = re.compile(r"within (\d+) % of each other in half of the rows without errors, within (\d+) % in 19 of 20")


@pytest.fixture(scope="module")
def faultless() -> list[Row]:
    every = rows(Journal.finished(JOURNAL).turns)
    found = [row for row in every if row.is_faultless]
    assert len(found) > len(every) / 2
    return found


def test_the_number_of_clients_agrees_with_littles_law(faultless: list[Row]) -> None:
    """Clients = requests/s times mean latency in a steady closed loop without errors."""
    for row in faultless:
        served = median(turn.seen["requests_per_s"] * turn.seen["latency"]["mean_ms"] / 1000 for turn in row.turns)
        assert served == pytest.approx(row.clients, rel=0.15), row


def test_rounds_differ_as_the_guide_says(faultless: list[Row]) -> None:
    told = SPREAD.search(" ".join((CHECKOUT / "docs/evidence.md").read_text().split()))
    assert told
    spread_percent = [100 * (max(row.rates) - min(row.rates)) / row.requests_per_s for row in faultless]
    twentieths = quantiles(spread_percent, n=20)
    assert [round(twentieths[9]), round(twentieths[18])] == [int(value) for value in told.groups()]
