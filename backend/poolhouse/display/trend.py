"""Curves of each service over the last updates of --watch: connections in use, callers waiting, checkouts."""

from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field

from rich.text import Text

from poolhouse.display.pool_tables import groups
from poolhouse.display.table import Table
from poolhouse.formatting import NOT_GIVEN
from poolhouse.overview.status import Status
from poolhouse.reports.report import ProcessReport

LOOKS_MAX = 40
BARS = "▁▂▃▄▅▆▇█"
# The columns of a line without its three curves: the service's name, three figures and the gaps.
BESIDE_CURVES_COLUMNS = 48
CURVE_MIN_COLUMNS = 8


Curve = deque[float | None]


@dataclass
class Curves:
    """The last values of one service; None is a value that it did not report."""

    in_use: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    waiting: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    lent_per_s: Curve = field(default_factory=lambda: deque(maxlen=LOOKS_MAX))
    max_in_use: int | None = None
    """the max of its pools together; None if one of them has no limit"""


class Trend:
    """The curves of each service since --watch began."""

    def __init__(self) -> None:
        self._rates = CheckoutRates()
        self._curves: dict[str, Curves] = {}

    def note(self, status: Status) -> None:
        """Add the values of a status; services that are gone are dropped."""
        rates = self._rates.note(status.processes)
        self._curves = {group.name: self._curves.get(group.name, Curves()) for group in groups(status)}
        for group in groups(status):
            curves = self._curves[group.name]
            curves.max_in_use = group.max
            curves.in_use.append(group.in_use)
            curves.waiting.append(group.waiting)
            curves.lent_per_s.append(_sum(rates[process.key] for process in group.processes))

    def table(self, width: int) -> Table:
        """Return one line per service, for a console of this width in columns."""
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


class CheckoutRates:
    """Checkouts per second of each process, between two of its reports and by its own clock."""

    def __init__(self) -> None:
        self._reports: dict[str, ProcessReport] = {}
        self._rates: dict[str, float | None] = {}

    def note(self, processes: Sequence[ProcessReport]) -> dict[str, float | None]:
        """Return the rates by process key; None for a process that is new or does not report checkouts."""
        self._rates = {process.key: self._rate(process) for process in processes}
        self._reports = {process.key: process for process in processes}
        return self._rates

    def _rate(self, process: ProcessReport) -> float | None:
        before = self._reports.get(process.key)
        if before is None or before.started_at != process.started_at:
            return None
        checkouts, checkouts_before = _checkouts(process), _checkouts(before)
        if checkouts is None or checkouts_before is None:
            return None
        elapsed_s = process.reported_at - before.reported_at
        # No new report since the last update: keep its rate.
        return (checkouts - checkouts_before) / elapsed_s if elapsed_s > 0 else self._rates[process.key]


def _checkouts(process: ProcessReport) -> int | None:
    known = [pool.counts["lent"] for pool in process.pools if "lent" in pool.counts]
    return sum(known) if known else None


def _sum(rates: Iterable[float | None]) -> float | None:
    known = [rate for rate in rates if rate is not None]
    return sum(known) if known else None


def _last(curve: Curve, *, digits: int = 0) -> str:
    return NOT_GIVEN if curve[-1] is None else f"{curve[-1]:,.{digits}f}"


def _curve(curve: Curve, columns: int, style: str, top: float | None = None) -> Text:
    return Text(sparkline(list(curve)[-columns:], top).rjust(columns), style=style)


def sparkline(values: Sequence[float | None], top: float | None = None) -> str:
    """Draw values as bars: the lowest for 0, the highest for the top or, without one, for the highest value.

    Values above 0 always differ from 0, however small they are; unknown values are left blank.
    """
    highest = max([top or 0.0, *(value for value in values if value is not None)])
    return "".join(" " if value is None else BARS[_height(value / highest) if highest else 0] for value in values)


def _height(share: float) -> int:
    return 0 if share <= 0 else max(1, round(share * (len(BARS) - 1)))
