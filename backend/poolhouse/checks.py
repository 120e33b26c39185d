"""`manage.py check`: settings with which pools go wrong, each with an id and what to do about it."""

from collections.abc import Iterator, Sequence
from typing import Any
from urllib.parse import urlsplit

from django.apps import AppConfig
from django.core import checks
from django.db import connections

from poolhouse.conf import options
from poolhouse.driver import driver_errors
from poolhouse.engines.options import problems
from poolhouse.identity import is_postgresql
from poolhouse.pools import LENDING_ENGINE, is_pooled
from poolhouse.server import capacity, monitor_cursor

MONITOR_CONNECTIONS = 1
PLAIN_POOL_OPTIONS = ("POOL_SIZE", "MAX_OVERFLOW", "TIMEOUT", "RECYCLE", "PRE_PING", "ECHO")


def check_settings(app_configs: Sequence[AppConfig] | None, **_: Any) -> list[checks.CheckMessage]:
    """Look at what the settings alone can tell."""
    return [
        message
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
        for question in (_pool_options, _conn_max_age, _server_side_cursors)
        for message in question(alias, database)
    ]


def check_fleet(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Hold the most connections that the fleet can open against the server's room: with `check --database ALIAS`."""
    fleet = options().FLEET
    if not fleet:
        return []
    return [message for alias in databases or () for message in _fleet_on(alias, fleet)]


def _pool_options(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    given = database.get("POOL_OPTIONS", {})
    found = problems(given)
    if database["ENGINE"] != LENDING_ENGINE:  # dj_db_conn_pool drops what it does not know, without a word
        found += [f"{key} is unknown to {database['ENGINE']}" for key in given if key not in PLAIN_POOL_OPTIONS]
    for problem in found:
        yield checks.Error(
            f"DATABASES[{alias!r}]['POOL_OPTIONS']: {problem}.",
            hint="Keys are in capitals; docs of poolhouse.engines.options list them.",
            id="poolhouse.E001",
        )


def _conn_max_age(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    if is_pooled(database) and database.get("CONN_MAX_AGE", 0) != 0:
        yield checks.Error(
            f"DATABASES[{alias!r}] has a pool, and CONN_MAX_AGE={database['CONN_MAX_AGE']}.",
            hint="Set CONN_MAX_AGE to 0: otherwise each thread keeps its connection, and the pool is empty for good.",
            id="poolhouse.E002",
        )


def _server_side_cursors(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    if _goes_through_pgbouncer(database) and not database.get("DISABLE_SERVER_SIDE_CURSORS", False):
        yield checks.Warning(
            f"DATABASES[{alias!r}] goes through PgBouncer, and Django may open server-side cursors.",
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True, unless PgBouncer's pool_mode is session: in another, a "
            "cursor is looked for on a connection that does not have it.",
            id="poolhouse.W003",
        )


def _goes_through_pgbouncer(database: dict[str, Any]) -> bool:
    pgbouncer = urlsplit(options().PGBOUNCER_URL)
    port = int(database.get("PORT") or 5432)
    return bool(pgbouncer.hostname) and (database.get("HOST"), port) == (pgbouncer.hostname, pgbouncer.port or 6432)


def _fleet_on(alias: str, fleet: dict[str, tuple[int, int]]) -> Iterator[checks.CheckMessage]:
    try:
        with monitor_cursor(alias) as cursor:
            room = capacity(cursor)
    except driver_errors(alias) as error:
        yield checks.Warning(
            f"The server of {alias!r} cannot be asked how many connections it takes: {error}", id="poolhouse.W005"
        )
        return
    parts = [f"{service} {processes} × {each}" for service, (processes, each) in fleet.items()]
    most = sum(processes * each for processes, each in fleet.values()) + MONITOR_CONNECTIONS
    if most > room.usable:
        yield checks.Warning(
            f"The fleet can open {most} connections to {alias!r} ({', '.join(parts)}, monitor {MONITOR_CONNECTIONS}), "
            f"and the server takes {room.usable} (max_connections {room.max_connections}, "
            f"reserved {room.superuser_reserved} + {room.reserved}).",
            hint="Make the pools smaller, run fewer processes, raise max_connections, or put PgBouncer in between.",
            id="poolhouse.W004",
        )
