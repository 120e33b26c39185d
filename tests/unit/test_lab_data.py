"""What the lab has published of the strategies agrees with itself."""

import json
from collections import defaultdict
from statistics import median
from typing import Any

import pytest

from config.env import CHECKOUT

LAB = CHECKOUT / "docs/lab"


def test_as_many_clients_are_served_as_ask_by_little_s_law() -> None:
    """Clients = requests/s times mean latency, for what was asked in a closed loop, without errors and steadily."""
    turns = [json.loads(line) for line in (LAB / "strategies.jsonl").read_text().splitlines()[1:]]
    by_row: dict[tuple[str, str, str, int], list[dict[str, Any]]] = defaultdict(list)
    for turn in turns:
        by_row[turn["strategy"], turn["model"], turn["workload"], turn["clients"]].append(turn["seen"])
    held = 0
    for row, seen in by_row.items():
        errors = sum(sum(turn["errors"].values()) for turn in seen)
        if errors <= 0.001 * sum(turn["answers"] for turn in seen) and all(turn["steady"] for turn in seen):
            served = median(turn["requests_per_s"] * turn["latency"]["mean_ms"] / 1000 for turn in seen)
            assert served == pytest.approx(row[-1], rel=0.15), row
            held += 1
    assert held > len(by_row) / 2
