"""What keeping connections must gain, as ratios of the rates in the headline comparison."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any


@dataclass(frozen=True)
class Goal:
    """A strategy must answer at least so many times the requests of another."""

    strategy: str
    times: float
    other: str

    def __str__(self) -> str:
        """Return the goal as a formula."""
        factor = "" if self.times == 1 else f"{self.times:g} × "
        return f"{self.strategy} ≥ {factor}{self.other}"

    def judged(self, rates: Mapping[str, float]) -> dict[str, Any]:
        """Return as JSON data whether it is met.

        Args:
            rates: requests/s by strategy, both strategies included.
        """
        ratio = rates[self.strategy] / rates[self.other]
        return {"goal": str(self), "measured": round(ratio, 3), "met": ratio >= self.times}


GOALS = (
    *(Goal(kept, 8, "none") for kept in ("persistent", "queuepool", "native")),
    Goal("queuepool", 1, "native"),
)


def judged(rates: Mapping[str, float]) -> list[dict[str, Any]]:
    """Return the results of the goals whose strategies were measured, by their requests/s."""
    return [goal.judged(rates) for goal in GOALS if goal.strategy in rates and rates.get(goal.other)]
