"""The health report on made-up statuses: the figures, the thresholds, and the output."""

import io
import json
from collections.abc import Callable, Iterator
from dataclasses import replace
from typing import Any

import pytest
from django.core.exceptions import ImproperlyConfigured
from pytest_django import Settings
from rich.console import Console

from poolhouse.conf import options
from poolhouse.display.health_report import draw_health
from poolhouse.measures.histogram import Histogram
from poolhouse.overview import health as health_module
from poolhouse.overview.health import ConnectionPoolHealth, ConnectionPoolMonitor, connection_max_age_s
from poolhouse.overview.status import ServerAnswers, Status, Unreachable
from poolhouse.process.activity import Activity
from poolhouse.reports.report import ProcessReport
from poolhouse.servers.server import HIDDEN, Capacity, ServerConnection, ServerFacts

Configure = Callable[..., None]


@pytest.fixture(autouse=True)
def configure(settings: Settings) -> Iterator[Configure]:
    """Set keys of POOLHOUSE for one test; by default no fleet is expected."""

    def set_keys(**keys: object) -> None:
        settings.POOLHOUSE = {**settings.POOLHOUSE, **keys}
        options.cache_clear()

    set_keys(FLEET={})
    yield set_keys
    options.cache_clear()


def connection(pid: int, state: str = "active", *, age_s: float = 60.0, state_age_s: float = 5.0) -> ServerConnection:
    return ServerConnection(
        pid, "web@box:1", "poolhouse", "poolhouse", "127.0.0.1", 50_000 + pid, state, "", age_s, state_age_s, None
    )


def activity(mean_s: float, *, count: int = 100, errors: int = 0) -> Activity:
    durations = Histogram()
    for _ in range(count):
        durations.record(mean_s)
    return Activity("default", durations, errors)


def process(pid: int = 1, *, recent: Activity | None = None, total: Activity | None = None) -> ProcessReport:
    name = f"web@box:{pid}"
    return ProcessReport(name, "web", "box", pid, 0.0, 99.0, (), (total,) * bool(total), (recent,) * bool(recent))  # type: ignore[arg-type]


def status(*connections: ServerConnection, processes: list[ProcessReport] | None = None) -> Status:
    facts = ServerFacts(Capacity("17.2", 40, 3, 2), list(connections), [])
    return Status(100.0, [process()] if processes is None else processes, [ServerAnswers(("default",), facts)])


@pytest.fixture
def health_of(monkeypatch: pytest.MonkeyPatch) -> Callable[[Status], ConnectionPoolHealth]:
    def judge(taken: Status) -> ConnectionPoolHealth:
        monkeypatch.setattr(health_module, "take_status", lambda *_, **__: taken)
        return ConnectionPoolMonitor().health()

    return judge


HealthOf = Callable[[Status], ConnectionPoolHealth]


@pytest.mark.parametrize(("open_", "word"), [(27, "HEALTHY"), (28, "WARNING"), (33, "WARNING"), (34, "CRITICAL")])
def test_utilisation_is_the_share_of_the_35_usable_connections(health_of: HealthOf, open_: int, word: str) -> None:
    health = health_of(status(*map(connection, range(open_))))
    assert health.status == word
    assert health.as_document()["utilisation_percent"] == round(100 * open_ / 35, 2)


@pytest.mark.parametrize(
    ("mean_s", "word"), [(0.099, "HEALTHY"), (0.1, "WARNING"), (0.499, "WARNING"), (0.5, "CRITICAL")]
)
def test_the_recent_mean_query_time_is_judged(health_of: HealthOf, mean_s: float, word: str) -> None:
    health = health_of(status(processes=[process(recent=activity(mean_s, count=20), total=activity(9.0))]))
    assert health.status == word
    assert bool(health.alerts) == (word != "HEALTHY")


@pytest.mark.parametrize(
    ("errors", "word"), [(0, "HEALTHY"), (9, "HEALTHY"), (10, "WARNING"), (49, "WARNING"), (50, "CRITICAL")]
)
def test_the_recent_error_rate_is_judged(health_of: HealthOf, errors: int, word: str) -> None:
    recent = activity(0.001, count=1000, errors=errors)
    assert health_of(status(processes=[process(recent=recent)])).status == word


@pytest.mark.parametrize(("idle", "word"), [(17, "HEALTHY"), (18, "WARNING")])
def test_half_of_the_usable_connections_idle_is_a_warning(health_of: HealthOf, idle: int, word: str) -> None:
    assert health_of(status(*(connection(pid, "idle") for pid in range(idle)))).status == word


def test_each_threshold_can_be_set(health_of: HealthOf, configure: Configure) -> None:
    slow = status(connection(1, "idle"), connection(2), processes=[process(recent=activity(0.05, errors=30))])
    assert health_of(slow).status == "CRITICAL"
    configure(ERRORS_CRITICAL_PERCENT=50.0, ERRORS_WARNING_PERCENT=40.0)
    assert health_of(slow).status == "HEALTHY"
    for keys, reason in (
        (
            {"UTILISATION_WARNING_PERCENT": 5.0},
            "2 of the 35 usable server connections are open, 5.7 % (warning at 5 %): ",
        ),
        ({"QUERY_WARNING_MS": 40.0}, "mean query time is 50 ms over the last 5 min (warning at 40 ms): "),
        ({"ERRORS_WARNING_PERCENT": 30.0}, "30.0 % of the queries failed over the last 5 min (warning at 30 %): "),
        ({"IDLE_WARNING_PERCENT": 2.0}, "1 of the 35 usable server connections are idle, 2.9 % (warning at 2 %): "),
    ):
        configure(**keys)
        health = health_of(slow)
        assert [alert.level for alert in health.alerts if alert.reason.startswith(reason)] == ["warning"]
    assert len(health.alerts) == 4
    configure(IDLE_LONG_S=4.0)
    assert health_of(slow).as_document()["idle_long_connections"] == 1


def test_a_critical_threshold_below_its_warning_is_rejected(configure: Configure) -> None:
    configure(QUERY_WARNING_MS=600.0)
    with pytest.raises(ImproperlyConfigured, match=r"QUERY_CRITICAL_MS=500\.0 must be QUERY_WARNING_MS"):
        options()


@pytest.mark.parametrize(("count", "word"), [(19, "HEALTHY"), (20, "CRITICAL")])
def test_queries_below_the_sample_minimum_are_not_judged(health_of: HealthOf, count: int, word: str) -> None:
    slow_and_wrong = activity(0.6, count=count, errors=count)
    health = health_of(status(processes=[process(recent=slow_and_wrong)]))
    assert (health.status, len(health.alerts)) == (word, 0 if word == "HEALTHY" else 2)


def test_idle_connections_are_unknown_if_the_server_hides_states(health_of: HealthOf) -> None:
    hidden = replace(connection(2, HIDDEN), age_s=None, state_age_s=None)
    health = health_of(status(connection(1, "idle"), hidden))
    document = health.as_document()
    assert document["active_connections"] == 2
    assert [document[f"idle_{what}"] for what in ("connections", "percent", "long_connections")] == [None] * 3
    assert ["Idle", "–"] in [line.split() for line in text_of(health).splitlines()]


def test_queries_are_those_of_all_processes_on_this_alias(health_of: HealthOf) -> None:
    elsewhere = replace(activity(9.0, errors=100), alias="other")
    first = replace(process(1, total=activity(0.001, count=98)), recent=(elsewhere,))
    second = process(2, total=activity(1.0, count=2, errors=1))
    document = json.loads(json.dumps(health_of(status(processes=[first, second])).as_document()))
    queries = document["queries"]
    assert (queries["count"], queries["errors"], queries["error_percent"]) == (100, 1, 1.0)
    assert queries["mean_s"] == pytest.approx(0.02098)
    assert queries["p95_s"] == pytest.approx(0.001, rel=0.1)
    assert queries["p99_s"] == pytest.approx(1.0, rel=0.1)
    assert document["recent_queries"]["count"] == 0
    assert document["status"] == "HEALTHY"


def test_an_unreachable_server_is_critical_and_not_shown_as_empty(health_of: HealthOf) -> None:
    away = Status(100.0, [], [], [Unreachable("database server (default)", "refused", "critical")])
    health = health_of(away)
    document = health.as_document()
    assert (document["status"], document["active_connections"], document["utilisation_percent"]) == (
        "CRITICAL",
        None,
        None,
    )
    assert (document["queries"], document["backend_pid"], document["connections"]) == (None, None, [])
    assert document.keys() == health_of(status(connection(1))).as_document().keys()
    text = text_of(health)
    assert text.startswith("CRITICAL\n  database server (default) is unreachable: refused\n")
    assert "– of – usable" in text


def text_of(health: ConnectionPoolHealth, width: int = 120) -> str:
    out = io.StringIO()
    Console(file=out, width=width, highlight=False, markup=False).print(draw_health(health))
    return out.getvalue()


@pytest.mark.parametrize("width", [80, 120, 200])
def test_the_report_shows_the_figures(health_of: HealthOf, width: int) -> None:
    connections = [connection(pid, "idle", age_s=45.2 + pid, state_age_s=301.0) for pid in range(1, 11)]
    total = activity(0.0123, count=1523)
    taken = status(connection(11, age_s=900.0), *connections, processes=[process(total=total, recent=activity(0.01))])
    lines = [" ".join(line.split()) for line in text_of(health_of(taken), width).splitlines()]
    assert lines[:2] == ["HEALTHY", "No alerts."]
    assert "Active connections 11 of 35 usable" in lines
    assert "Utilisation 31.4 %" in lines
    assert "Idle 10 of 35 usable, 28.6 %; 10 of these for longer than 300 s" in lines
    assert "Backend pid 11 (of the oldest connection)" in lines
    assert "Connection age 15.0 min" in lines
    assert "overall 1,523 0 0.0 % 12 ms 13 ms 13 ms 13 ms" in lines
    assert lines[-1] == "… and 1 more"
    assert lines[-11].startswith("11 active"), "active connections come first"


@pytest.mark.parametrize(
    ("database", "age_s"),
    [
        ({"ENGINE": "django.db.backends.postgresql"}, 0),
        ({"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": 60}, 60),
        ({"ENGINE": "django.db.backends.postgresql", "CONN_MAX_AGE": None}, None),
        ({"ENGINE": "poolhouse.engines.postgresql"}, 900),
        ({"ENGINE": "poolhouse.engines.postgresql", "POOL_OPTIONS": {"RECYCLE": 3600}}, 3600),
        ({"ENGINE": "dj_db_conn_pool.backends.postgresql", "POOL_OPTIONS": {"RECYCLE": -1}}, None),
        ({"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": True}}, 3600),
        ({"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": {"max_lifetime": 60.0}}}, 60),
        ({"ENGINE": "django.db.backends.postgresql", "OPTIONS": {"pool": {"max_lifetime": float("inf")}}}, None),
    ],
)
def test_the_max_age_follows_from_the_engine_or_pool(database: dict[str, Any], age_s: float | None) -> None:
    assert connection_max_age_s(database) == age_s
