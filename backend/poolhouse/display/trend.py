"""How the services fare from look to look: what is in use, who waits, and how much is lent, as small curves."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from poolhouse.display.pool_tables import groups
from poolhouse.display.table import Table
from poolhouse.human import NOT_GIVEN
from poolhouse.overview.status import Status
from poolhouse.reports.report import ProcessReport

LOOKS_MAX = 40
BARS = "▁▂▃▄▅▆▇█"
# What a line needs beside its three curves: the service's name, three figures and the gaps.
BESIDE_CURVES_COLUMNS = 48
CURVE_MIN_COLUMNS = 8


Curve = deque[float | None]


@dataclass
class Curves:
    """The last looks at one service; None is what it did not tell."""

    in_use: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    waiting: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    lent_per_s: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    max_in_use: int | None = None
    """what its pools can lend together; None where they are not bounded"""


class Trend:
    """What was seen of each service since the watching began."""

    def __init__(self) -> None:
        self._rates = LendingRates()
        self._curves: dict[str, Curves] = {}

    def note(self, status: Status) -> None:
        """Take in a look; a service that is gone is forgotten."""
        rates = self._rates.note(status.processes)
        self._curves = {group.name: self._curves.get(group.name, Curves()) for group in groups(status)}
        for group in groups(status):
            curves = self._curves[group.name]
            curves.max_in_use = group.max
            curves.in_use.append(group.in_use)
            curves.waiting.append(group.waiting)
            curves.lent_per_s.append(_sum(rates[process.key] for process in group.processes))

    def table(self, width: int) -> Table:
        """Draw a line for each service, for a console of so many columns."""
        columns = max(CURVE_MIN_COLUMNS, min(LOOKS_MAX, (width - BESIDE_CURVES_COLUMNS) // 3))
        made = Table("service", "in use#", "#", "waiting#", "#", "checkouts/s#", "#")
        for name, curves in self._curves.items():
            made.add_row(
                name,
                _last(curves.in_use) + ("" if curves.max_in_use is None else f" of {curves.max_in_use}"),
                _curve(curves.in_use, columns, "cyan", curves.max_in_use),
                _last(curves.waiting),
                _curve(curves.waiting, columns, "yellow"),
                _last(curves.lent_per_s, digits=1),
                _curve(curves.lent_per_s, columns, "cyan"),
            )
        return made


class LendingRates:
    """How much each process lends, from one of its reports to the next, by its own clock; processes by their keys."""

    def __init__(self) -> None:
        self._reports: dict[str, ProcessReport] = {}
        self._rates: dict[str, float | None] = {}

    def note(self, processes: Sequence[ProcessReport]) -> dict[str, float | None]:
        """Give connections lent per second by key; None: it does not tell, or is seen for the first time."""
        self._rates = {process.key: self._rate(process) for process in processes}
        self._reports = {process.key: process for process in processes}
        return self._rates

    def _rate(self, process: ProcessReport) -> float | None:
        before = self._reports.get(process.key)
        if before is None or before.started_at != process.started_at:
            return None
        lent, lent_before = _lent(process), _lent(before)
        if lent is None or lent_before is None:
            return None
        elapsed_s = process.reported_at - before.reported_at
        # Its report is the one of the last look: it lends as it did.
        return (lent - lent_before) / elapsed_s if elapsed_s > 0 else self._rates[process.key]


def _lent(process: ProcessReport) -> int | None:
    told = [pool.counts["lent"] for pool in process.pools if "lent" in pool.counts]
    return sum(told) if told else None


def _sum(rates: Iterable[float | None]) -> float | None:
    told = [rate for rate in rates if rate is not None]
    return sum(told) if told else None


def _last(curve: Curve, *, digits: int = 0) -> str:
    return NOT_GIVEN if curve[-1] is None else f"{curve[-1]:,.{digits}f}"


def _curve(curve: Curve, columns: int, style: str, top: float | None = None) -> Text:
    return Text(sparkline(list(curve)[-columns:], top).rjust(columns), style=style)


def sparkline(values: Sequence[float | None], top: float | None = None) -> str:
    """Draw values as bars, the lowest for 0, the highest for the top or, without one, for the highest value.

    What is not 0 is told apart from 0, however small it is; what is not known is left blank.
    """
    highest = max([top or 0.0, *(value for value in values if value is not None)])
    return "".join(" " if value is None else BARS[_height(value / highest) if highest else 0] for value in values)


def _height(share: float) -> int:
    return 0 if share <= 0 else max(1, round(share * (len(BARS) - 1)))
