"""The health of a database's connections as text for people."""

from datetime import UTC, datetime

from rich.console import Group, RenderableType
from rich.text import Text

from poolhouse.conf import options
from poolhouse.display.console import section
from poolhouse.display.render import draw_level
from poolhouse.display.table import Table
from poolhouse.formatting import NOT_GIVEN, duration, percent
from poolhouse.overview.health import ConnectionPoolHealth, ConnectionPoolStats
from poolhouse.process.activity import RECENT_S, Activity

SHOWN_MAX_CONNECTIONS = 10


def draw_health(health: ConnectionPoolHealth) -> RenderableType:
    """Return status, alerts, figures, queries and open connections."""
    stats = health.stats
    reasons = [alert.reason for alert in health.alerts] or ["No alerts."]
    parts: list[RenderableType] = [
        draw_level(health.level, reasons, word=health.status),
        Text(),
        _figures(stats),
        *section("Queries", _query_table(stats)),
        *section("Active connections", _connection_table(stats)),
    ]
    if (more := len(stats.connections) - SHOWN_MAX_CONNECTIONS) > 0:
        parts.append(Text(f"… and {more} more", style="dim"))
    return Group(*parts)


def _figures(stats: ConnectionPoolStats) -> Table:
    oldest = stats.oldest
    made = Table("", "")
    made.show_header = False
    for name, value in (
        ("Database", f"{stats.database} (alias {stats.alias})"),
        ("Time", f"{datetime.fromtimestamp(stats.taken_at, UTC):%Y-%m-%d %H:%M:%S} UTC"),
        ("Connection max age", _max_age(stats)),
        ("Active connections", f"{_given(stats.active_connections)} of {_given(stats.max_connections)} usable"),
        ("Utilisation", percent(stats.utilisation)),
        ("Idle", _idle(stats)),
        ("Backend pid", f"{oldest.pid} (of the oldest connection)" if oldest else NOT_GIVEN),
        ("Connection age", duration(oldest.age_s) if oldest else NOT_GIVEN),
    ):
        made.add_row(Text(name, style="dim"), Text(value))
    return made


def _max_age(stats: ConnectionPoolStats) -> str:
    match stats.connection_max_age_s:
        case None:
            return "unlimited"
        case 0:
            return "0 s: closed after each request"
        case age_s:
            return f"{age_s:g} s"


def _idle(stats: ConnectionPoolStats) -> str:
    if stats.idle is None or stats.idle_long is None:
        return NOT_GIVEN
    longer = f"{len(stats.idle_long)} of these for longer than {options().IDLE_LONG_S:g} s"
    return f"{len(stats.idle)} of {stats.max_connections} usable, {percent(stats.idle_share)}; {longer}"


def _given(count: int | None) -> str:
    return NOT_GIVEN if count is None else str(count)


def _query_table(stats: ConnectionPoolStats) -> Table:
    made = Table(
        "", "queries#", "errors#", "error rate#", "average#", "p50#", "p95#", "p99#", shed=("p50", "p99", "error rate")
    )
    for name, activity in (("overall", stats.total), (f"last {RECENT_S // 60} minutes", stats.recent)):
        made.add_row(name, *_query_row(activity))
    return made


def _query_row(activity: Activity | None) -> list[str]:
    if activity is None:
        return [NOT_GIVEN] * 7
    times = activity.statements
    return [
        f"{times.count:,}",
        f"{activity.errors:,}",
        percent(activity.error_share),
        duration(times.mean_s),
        *(duration(times.quantile_s(share)) for share in (0.50, 0.95, 0.99)),
    ]


def _connection_table(stats: ConnectionPoolStats) -> Table:
    made = Table("pid#", "state", "for#", "age#", "user", "database", "application", shed=("database", "user", "age"))
    for one in stats.connections[:SHOWN_MAX_CONNECTIONS]:
        made.add_row(
            str(one.pid),
            one.state,
            duration(one.state_age_s),
            duration(one.age_s),
            one.user,
            one.database,
            one.application,
        )
    return made
