"""System checks for `manage.py check`: settings that break pools, each with an id and a hint."""

from collections.abc import Iterator, Sequence
from importlib.util import find_spec
from typing import Any

from django.apps import AppConfig
from django.core import checks
from django.db import connections

from poolhouse.backends import is_lending, is_postgresql, is_queuepool
from poolhouse.conf import Options, options
from poolhouse.driver import driver, driver_errors, own_connection_params, postgresql_aliases
from poolhouse.engines.options import problems
from poolhouse.process.forks import pools_in_prefork
from poolhouse.process.pools import LENDING_ENGINE, is_pooled
from poolhouse.servers import pgbouncer
from poolhouse.servers.bounded import Cursor, bounded_cursor
from poolhouse.servers.refusals import POOLER_FULL, direct_remedy, state_of
from poolhouse.servers.server import Capacity, ask_as_monitor, capacity

MONITOR_CONNECTIONS = 1
PLAIN_POOL_OPTIONS = ("POOL_SIZE", "MAX_OVERFLOW", "TIMEOUT", "RECYCLE", "PRE_PING", "ECHO")


def check_settings(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Check the settings; what only a server knows is left to `check --database` for the aliases in `databases`."""
    found = [
        message
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
        for question in (_pool_options, _conn_max_age)
        for message in question(alias, database)
    ]
    unasked = [alias for alias in postgresql_aliases() if alias not in (databases or ())]
    found += [_possible_cursors(alias) for alias in _aliases_with_cursors_in_pgbouncer() if alias in unasked]
    found += [_through_pooler(alias) for alias in _aliases_with_monitor_in_pgbouncer() if alias in unasked]
    return [*found, *(pools_in_prefork() if _has_prefork_workers() else [])]


def check_servers(
    app_configs: Sequence[AppConfig] | None, databases: Sequence[str] | None = None, **_: Any
) -> list[checks.CheckMessage]:
    """Check the server and PgBouncer of each alias in `check --database ALIAS`."""
    asked = [alias for alias in databases or () if is_postgresql(connections.settings[alias]["ENGINE"])]
    return [
        message
        for alias in asked
        for question in (_fleet, _server_side_cursors, _monitor_address)
        for message in question(alias, options())
    ]


def _pool_options(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    given, engine = database.get("POOL_OPTIONS", {}), database["ENGINE"]
    if is_lending(engine):
        found = problems(given)
    elif is_queuepool(engine):  # it silently ignores keys that it does not know
        known = {key: value for key, value in given.items() if key in PLAIN_POOL_OPTIONS}
        found = [f"{engine} ignores the unknown key {key!r}" for key in given if key not in known] + problems(known)
    else:  # a project's own engine may support POOL_OPTIONS
        found = [f"{engine} ignores POOL_OPTIONS"] if given and engine.startswith("django.") else []
    for problem in found:
        yield checks.Error(
            f"DATABASES[{alias!r}]['POOL_OPTIONS']: {problem}.",
            hint=f"dj_db_conn_pool supports {', '.join(PLAIN_POOL_OPTIONS)}; {LENDING_ENGINE} supports these and more.",
            id="poolhouse.E001",
        )


def _conn_max_age(alias: str, database: dict[str, Any]) -> Iterator[checks.CheckMessage]:
    if is_pooled(database) and database.get("CONN_MAX_AGE", 0) != 0:
        yield checks.Error(
            f"DATABASES[{alias!r}] has a pool and CONN_MAX_AGE={database['CONN_MAX_AGE']}; with a pool it must be 0.",
            hint="Set CONN_MAX_AGE to 0. Otherwise each thread keeps its connection and the pool runs empty.",
            id="poolhouse.E002",
        )


def _has_prefork_workers() -> bool:
    if not find_spec("celery"):
        return False
    from poolhouse.tasks import is_prefork

    return is_prefork()


# Server-side cursors behind PgBouncer.


def _aliases_with_cursors_in_pgbouncer() -> list[str]:
    return [
        alias
        for alias, database in connections.settings.items()
        if is_postgresql(database["ENGINE"])
        and pgbouncer.goes_through(database)
        and not database.get("DISABLE_SERVER_SIDE_CURSORS", False)
    ]


def _possible_cursors(alias: str) -> checks.CheckMessage:
    return checks.Info(
        f"DATABASES[{alias!r}] goes through PgBouncer and may open server-side cursors, which need pool_mode session.",
        hint=f"Run `manage.py check --database {alias}`, which reads the pool_mode from PgBouncer.",
        id="poolhouse.I003",
    )


def _server_side_cursors(alias: str, chosen: Options) -> Iterator[checks.CheckMessage]:
    if alias not in _aliases_with_cursors_in_pgbouncer():
        return
    database = connections.settings[alias]
    try:
        with pgbouncer.console_cursor(alias) as cursor:
            _connect_once(alias, cursor)
            mode = pgbouncer.pool_mode(cursor, database["NAME"], database["USER"])
    except driver_errors(alias) as error:
        yield _cannot_read(f"Cannot read the pool_mode from the PgBouncer of {alias!r}", error)
        return
    if mode != "session":
        yield checks.Warning(
            f"DATABASES[{alias!r}] goes through PgBouncer in pool_mode {mode} and may open server-side cursors, "
            "which need pool_mode session.",
            hint="Set DISABLE_SERVER_SIDE_CURSORS to True: a cursor exists on one server connection only.",
            id="poolhouse.W003",
        )


def _connect_once(alias: str, cursor: Cursor) -> None:
    """Connect through PgBouncer once: it lists a database of its entry * only after a first client has used it."""
    name = connections.settings[alias]["NAME"]
    if pgbouncer.database_pool(cursor, name) is None:
        params = own_connection_params(alias) | {"options": ""}  # PgBouncer may reject startup options
        with bounded_cursor(driver(alias), options().MONITOR_TIMEOUT_S, **params):
            pass


# The monitor behind PgBouncer.


def _aliases_with_monitor_in_pgbouncer() -> list[str]:
    return [
        alias
        for alias in postgresql_aliases()
        if alias not in options().DIRECT and pgbouncer.goes_through(connections.settings[alias])
    ]


def _monitor_address(alias: str, chosen: Options) -> Iterator[checks.CheckMessage]:
    try:
        server, _ = ask_as_monitor(alias, capacity)
        is_through = server.through_pooler
    except driver_errors(alias) as error:
        is_through = state_of(error) == POOLER_FULL
    if is_through or alias in _aliases_with_monitor_in_pgbouncer():
        yield _through_pooler(alias)


def _through_pooler(alias: str) -> checks.CheckMessage:
    return checks.Warning(
        f"The monitor connects to the server of {alias!r} through PgBouncer: it uses one of the application's "
        "connections, fails when PgBouncer is full, and cannot tell which connections PgBouncer holds.",
        hint=f"S{direct_remedy(alias)[1:]}."
        if alias not in options().DIRECT
        else f"POOLHOUSE['DIRECT'][{alias!r}] is an address of PgBouncer: set it to the address of the server itself.",
        id="poolhouse.W008",
    )


# The fleet.


def _fleet(alias: str, chosen: Options) -> Iterator[checks.CheckMessage]:
    """Compare the number of connections that the fleet can open with the number that is usable."""
    fleet = chosen.FLEET
    if pgbouncer.goes_through(connections.settings[alias]):
        yield from _pgbouncer_pool_size(alias, chosen)
    if not fleet:
        return
    pooler = chosen.PGBOUNCER_CONNECTIONS
    most = sum(processes * each for processes, each in fleet.values()) + pooler + MONITOR_CONNECTIONS
    parts = ", ".join(f"{service} {processes} × {each}" for service, (processes, each) in fleet.items())
    parts += f", PgBouncer {pooler}" if pooler else ""
    try:
        room, of_what = _room(alias, chosen)
    except driver_errors(alias) as error:
        yield _cannot_read(f"Cannot read the connection limit from the server of {alias!r}", error)
        return
    if most > room:
        yield checks.Warning(
            f"The fleet can open {most} connections to {alias!r} ({parts}, monitor {MONITOR_CONNECTIONS}), "
            f"more than the {room} that are usable ({of_what}).",
            hint="Lower POOL_SIZE or MAX_OVERFLOW, run fewer processes, raise the limit, or use PgBouncer.",
            id="poolhouse.W004",
        )


def _pgbouncer_pool_size(alias: str, chosen: Options) -> Iterator[checks.CheckMessage]:
    """Compare the number of connections that PgBouncer opens for one role with the number that the server accepts."""
    try:
        with pgbouncer.console_cursor(alias) as cursor:
            _connect_once(alias, cursor)
            pool = pgbouncer.database_pool(cursor, connections.settings[alias]["NAME"])
        server, _ = ask_as_monitor(alias, capacity)
    except driver_errors(alias) as error:
        yield _cannot_read(f"Cannot compare the limits of PgBouncer and of the server of {alias!r}", error)
        return
    if pool and pool.most + MONITOR_CONNECTIONS > server.usable:
        yield checks.Warning(
            f"PgBouncer can open {pool.most} connections for each role of {alias!r} (pool_size {pool.size}, "
            f"reserve {pool.reserve}{f', at most {pool.bound}' if pool.bound else ''}). With the monitor's "
            f"{MONITOR_CONNECTIONS} these are more than the {server.usable} that are usable ({_limits_text(server)}).",
            hint="Lower its pool_size (clients then wait in PgBouncer), or raise max_connections.",
            id="poolhouse.W004",
        )


def _room(alias: str, chosen: Options) -> tuple[int, str]:
    """Return how many connections clients may open, and the settings that this follows from."""
    if pgbouncer.goes_through(connections.settings[alias]):
        with pgbouncer.console_cursor(alias) as cursor:
            room = int(pgbouncer.setting(cursor, "max_client_conn"))
        return room, f"PgBouncer's max_client_conn {room}"
    server, _ = ask_as_monitor(alias, capacity)
    return server.usable, _limits_text(server)


def _limits_text(server: Capacity) -> str:
    return f"max_connections {server.max_connections}, reserved {server.superuser_reserved} + {server.reserved}"


def _cannot_read(what: str, error: Exception) -> checks.CheckMessage:
    return checks.Warning(f"{what}: {' '.join(str(error).split())}", id="poolhouse.W005")
