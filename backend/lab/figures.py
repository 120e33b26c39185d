"""The figures of a comparison as text, for the terminal, the HTML page and the Markdown file."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from lab.summary import Row

NOTHING = "–"


@dataclass(frozen=True)
class Column:
    """One figure of each row."""

    title: str
    """with the unit"""
    text: Callable[[Row], str]
    is_brief: bool = False
    """also shown on the terminal"""
    is_number: bool = True


@dataclass(frozen=True)
class Figures:
    """Rows as text, in the order of reading."""

    columns: Sequence[Column]
    lines: Sequence[Sequence[str]]


def figures(rows: Sequence[Row], *, brief: bool = False) -> Figures:
    """Return rows as text, from few clients to many and the fastest first, without columns that are empty."""
    ordered = sorted(rows, key=lambda row: (row.clients, -row.requests_per_s))
    columns = [
        column for column in COLUMNS if column.is_brief >= brief and any(column.text(row) != NOTHING for row in ordered)
    ]
    return Figures(columns, [[column.text(row) for column in columns] for row in ordered])


def _number(value: float | None, decimals: int = 0) -> str:
    return NOTHING if value is None else f"{value:,.{decimals}f}"


def _ms(which: str, of: str = "latency") -> Callable[[Row], str]:
    return lambda row: _number(row.latency_ms(which, of), 1)


def _steady(row: Row) -> str:
    return NOTHING if row.is_steady else "no"


COLUMNS = (
    Column("strategy", lambda row: row.strategy, is_brief=True, is_number=False),
    Column("clients", lambda row: str(row.clients), is_brief=True),
    Column("requests/s", lambda row: _number(row.requests_per_s), is_brief=True),
    Column("by round", lambda row: f"{min(row.rates):,.0f}–{max(row.rates):,.0f}"),
    Column("steady", _steady, is_brief=True, is_number=False),
    Column("p50 ms", _ms("p50_ms"), is_brief=True),
    Column("p95 ms", _ms("p95_ms")),
    Column("p99 ms", _ms("p99_ms"), is_brief=True),
    Column("max ms", _ms("max_ms")),
    Column("p99 ms of fast", _ms("p99_ms", "latency_of_fast")),
    Column("errors", lambda row: f"{1 - row.good_share:.1%}" if row.errors else "0", is_brief=True),
    Column("kinds of error", lambda row: ", ".join(sorted(row.errors)) or NOTHING, is_number=False),
    Column("pool wait ms", lambda row: _number(row.pool_wait_ms, 1), is_brief=True),
    Column("PgBouncer wait ms", lambda row: _number(row.pgbouncer_wait_ms, 1), is_brief=True),
    Column("opened/s", lambda row: _number(row.opened_per_s), is_brief=True),
    Column("most open", lambda row: str(row.most_connections), is_brief=True),
    Column("web µs", lambda row: _number(row.processor_us("web"))),
    Column("server µs", lambda row: _number(row.processor_us("timescale"))),
    Column("PgBouncer µs", lambda row: _number(row.processor_us("pgbouncer"))),
    Column("web MiB", lambda row: _number(row.memory_mib("web"))),
    Column("server MiB", lambda row: _number(row.memory_mib("timescale"))),
)
