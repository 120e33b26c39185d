"""DATABASES from the environment: the web's strategy, and which processes bypass PgBouncer."""

import sys
from collections.abc import Mapping
from dataclasses import replace
from importlib.util import find_spec
from typing import Any
from urllib.parse import parse_qsl, unquote, urlencode

from pydantic import PostgresDsn

from config.env import BadEnvironment, Database, Deployment, Monitor, Pooler, Queue, Web, read
from config.strategies import STRATEGIES, Numbers, Strategy, behind_pgbouncer

LOOPBACK = "127.0.0.1"
WORKER_STRATEGY = "persistent"

# Set by config.start, because SERVICE_NAME is only a name and does not say how the process was started.
_is_command = False


def get_database_settings() -> dict[str, Any]:
    """Return Django's DATABASES for this process, and make Django import the strategy's driver.

    Raises:
        BadEnvironment: the variables contradict each other.

    """
    config = get_pgbouncer_config() if should_use_pgbouncer() else get_database_config()
    _use_driver(_strategy_here().driver)
    return {"default": config}


def get_database_config() -> dict[str, Any]:
    """Return the entry of DATABASES that connects directly to the database server, with or without PgBouncer in use.

    Raises:
        BadEnvironment: the variables contradict each other.

    """
    get_strategy()
    return direct_config(STRATEGIES[_strategy_here().keeper], _database_here(), development=_is_development())


def get_pgbouncer_config() -> dict[str, Any]:
    """Return the entry of DATABASES that connects through PgBouncer, whether or not this process uses it.

    Raises:
        BadEnvironment: the variables contradict each other, or the strategy cannot be combined with PgBouncer.

    """
    database, pooler = read(Database), read(Pooler)
    named = strategy_of(database, pooler.model_copy(update={"use_pgbouncer": True}), read(Monitor))
    return pgbouncer_config(STRATEGIES[named], database, pooler, read(Monitor), development=_is_development())


def should_use_pgbouncer() -> bool:
    """Return True if this process connects through PgBouncer: only the web does, if its strategy does."""
    return _strategy_here().pool_mode is not None


def get_strategy() -> str:
    """Return the name of the web's strategy, a key of STRATEGIES.

    Raises:
        BadEnvironment: the variables contradict each other.

    """
    return strategy_of(read(Database), read(Pooler), read(Monitor))


def get_console_url() -> str:
    """Return the URL of PgBouncer's admin console for the monitor; empty if the monitor does not query PgBouncer."""
    monitor = read(Monitor)
    if STRATEGIES[get_strategy()].pool_mode is not None and read(Pooler).pgbouncer_url is None:
        monitor = _with_host(monitor)
    url, tls = monitor.pgbouncer_url, _tls_to_pgbouncer(read(Database), monitor)
    return f"{url}?{urlencode(tls)}" if url and tls else url


def go_directly() -> None:
    """Make this process a management command: it connects directly, without a statement timeout."""
    global _is_command  # noqa: PLW0603 - a process is one thing
    _is_command = True


def get_fleet() -> dict[str, tuple[int, int]]:
    """Return, for each service, its number of processes and the most direct server connections that each opens."""
    return fleet_of(
        STRATEGIES[get_strategy()],
        read(Web),
        read(Queue),
        numbers_of(read(Database), development=_is_development()),
    )


def get_pgbouncer_connections() -> int:
    """Return how many server connections PgBouncer opens for the web at most."""
    return 0 if STRATEGIES[get_strategy()].pool_mode is None else read(Pooler).most


def _strategy_here() -> Strategy:
    """Return this process's strategy.

    Worker and beat use the standard backend. A prefork worker forks, and a pool must not be shared across a fork; nor
    would a pool help there, since each child runs one task at a time on one connection.
    """
    strategy = STRATEGIES[get_strategy()]
    if read(Deployment).celery_worker_running:
        return STRATEGIES[WORKER_STRATEGY]
    return STRATEGIES[strategy.keeper] if _is_command else strategy


def _database_here() -> Database:
    """Return the database's variables as this process uses them.

    A command has no statement timeout, because a migration may build an index for an hour. Its 0 is sent to the server
    rather than left out, because the role has a statement timeout of its own there.
    """
    database = read(Database)
    return database.model_copy(update={"db_statement_timeout": 0}) if _is_command else database


def _is_development() -> bool:
    return read(Deployment).django_env == "development"


def _use_driver(driver: str) -> None:
    """Make Django and SQLAlchemy import this driver: both prefer psycopg 3 if they can import it."""
    if driver == "psycopg2":
        sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]  # importing it now raises ImportError


# Functions of the sections alone.


def strategy_of(database: Database, pooler: Pooler, monitor: Monitor) -> str:
    """Return the name of the strategy that the variables together select.

    Raises:
        BadEnvironment: they contradict each other; the text says why, and what to set.

    """
    given = STRATEGIES[database.db_pool_strategy]
    named = given.name
    if pooler.use_pgbouncer and given.pool_mode is None:
        named = _behind_or_refuse(given)
    problems = _problems_with(given, STRATEGIES[named], database, pooler, monitor)
    if problems:
        raise BadEnvironment(problems)
    return named


def _behind_or_refuse(keeper: Strategy) -> str:
    if (named := behind_pgbouncer(keeper.keeper)) is None:
        allowed = [name for name, row in STRATEGIES.items() if row.pool_mode is None and behind_pgbouncer(name)]
        raise BadEnvironment(
            [
                f"USE_PGBOUNCER=true cannot be combined with DB_POOL_STRATEGY={keeper.name!r}: that pool is not tested "
                f"in front of PgBouncer. Set DB_POOL_STRATEGY to {_one_of(allowed)}, or to a strategy with PgBouncer "
                f"({_one_of(_through_pgbouncer())})."
            ]
        )
    return named


def _problems_with(
    given: Strategy, strategy: Strategy, database: Database, pooler: Pooler, monitor: Monitor
) -> list[str]:
    found = []
    if given.pool_mode is not None and pooler.use_pgbouncer is False:
        found.append(
            f"USE_PGBOUNCER=false contradicts DB_POOL_STRATEGY={given.name!r}, which connects through PgBouncer. "
            f"Leave USE_PGBOUNCER empty, or set DB_POOL_STRATEGY to {given.keeper}."
        )
    if strategy.pool_mode is None and pooler.use_pgbouncer is None and pooler.pgbouncer_url is not None:
        found.append(
            f"PGBOUNCER_URL is set, but DB_POOL_STRATEGY={given.name!r} does not connect through PgBouncer. "
            f"Set USE_PGBOUNCER to true or false, or DB_POOL_STRATEGY to {_one_of(_through_pgbouncer())}."
        )
    if given.keeper == "persistent" and database.db_conn_max_age == 0:
        found.append(
            f"DB_CONN_MAX_AGE=0 contradicts DB_POOL_STRATEGY={given.name!r}, which keeps connections for that time. "
            f"Set DB_CONN_MAX_AGE to 1 or more, or DB_POOL_STRATEGY to {replace(given, keeper='none').name}."
        )
    if not _is_installed(strategy.driver):
        found.append(
            f"DB_POOL_STRATEGY={strategy.name!r} needs the driver {strategy.driver}, which is not installed. "
            f"Install it, or set DB_POOL_STRATEGY to another strategy."
        )
    if strategy.pool_mode is not None:
        found += _problems_behind(strategy, database, pooler, monitor)
    return found


def _problems_behind(strategy: Strategy, database: Database, pooler: Pooler, monitor: Monitor) -> list[str]:
    found = []
    if database.database_url is not None and pooler.pgbouncer_url is None and not monitor.pgbouncer_host:
        found.append(
            f"DB_POOL_STRATEGY={strategy.name!r} connects through PgBouncer, but for the server in DATABASE_URL no "
            "PgBouncer is configured. Set PGBOUNCER_URL, or PGBOUNCER_HOST and PGBOUNCER_PORT."
        )
    urls = {"DATABASE_URL": database.database_url, "PGBOUNCER_URL": pooler.pgbouncer_url}
    for name, url in urls.items():
        if url is not None and "options" in dict(parse_qsl(url.query or "")):
            found.append(
                f"{name} contains ?options=, but DB_POOL_STRATEGY={strategy.name!r} connects through PgBouncer, which "
                "does not pass options on. Set them on the server: ALTER ROLE … IN DATABASE … SET …"
            )
    return found


def _is_installed(driver: str) -> bool:
    is_hidden = driver in sys.modules and sys.modules[driver] is None  # _use_driver has hidden it for another strategy
    return is_hidden or find_spec(driver) is not None


def _through_pgbouncer() -> list[str]:
    return [name for name, row in STRATEGIES.items() if row.pool_mode is not None]


def _one_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def numbers_of(database: Database, *, development: bool) -> Numbers:
    """Return the pool's numbers; in development, their _DEV variants if those are set."""

    def chosen(name: str) -> Any:
        variant = getattr(database, f"{name}_dev") if development else None
        return getattr(database, name) if variant is None else variant

    return Numbers(
        size=chosen("db_max_conns"),
        overflow=chosen("db_max_overflow"),
        least=min(chosen("db_min_conns"), chosen("db_max_conns")),
        recycle_s=chosen("db_pool_recycle"),
        timeout_s=chosen("db_pool_timeout"),
        max_age_s=database.db_conn_max_age,
        health_checks=database.db_conn_health_checks,
    )


def direct_config(strategy: Strategy, database: Database, *, development: bool) -> dict[str, Any]:
    """Return the entry of DATABASES for a strategy that connects directly."""
    server = _direct_server(database)
    server["OPTIONS"] = {**database.tls, **server["OPTIONS"]}
    timeout = f"-c statement_timeout={database.db_statement_timeout}"
    server["OPTIONS"]["options"] = f"{timeout} {server['OPTIONS'].get('options', '')}".strip()
    return _config(strategy, server, database, development=development)


def pgbouncer_config(
    strategy: Strategy, database: Database, pooler: Pooler, monitor: Monitor, *, development: bool
) -> dict[str, Any]:
    """Return the entry for a strategy with PgBouncer; timescale/pgbouncer.sh sets the statement timeout on the role."""
    if pooler.pgbouncer_url is not None:
        server = _server_from_url(pooler.pgbouncer_url)
    else:
        address = {"HOST": _with_host(monitor).pgbouncer_host, "PORT": monitor.pgbouncer_port}
        server = _direct_server(database) | address
        server["NAME"] = f"{server['NAME']}_{strategy.pool_mode}"
    server["OPTIONS"] = {**_tls_to_pgbouncer(database, monitor), **server["OPTIONS"]}
    return _config(strategy, server, database, development=development)


def _tls_to_pgbouncer(database: Database, monitor: Monitor) -> dict[str, str]:
    return database.model_copy(update={"db_sslmode": monitor.pgbouncer_sslmode}).tls


def _with_host(monitor: Monitor) -> Monitor:
    return monitor.model_copy(update={"pgbouncer_host": monitor.pgbouncer_host or LOOPBACK})


def _config(strategy: Strategy, server: Mapping[str, Any], database: Database, *, development: bool) -> dict[str, Any]:
    made = strategy.settings(numbers_of(database, development=development))
    options = {
        "connect_timeout": database.db_connect_timeout,
        **server["OPTIONS"],
        **made.pop("OPTIONS", {}),
    }
    return {**server, "ENGINE": strategy.engine, "OPTIONS": options, **made}


def _direct_server(database: Database) -> dict[str, Any]:
    if database.database_url is not None:
        return _server_from_url(database.database_url)
    return {
        "HOST": database.db_host,
        "PORT": database.db_port,
        "NAME": database.db_name,
        "USER": database.db_user,
        "PASSWORD": database.db_pass.get_secret_value(),
        "OPTIONS": {},
    }


def _server_from_url(url: PostgresDsn) -> dict[str, Any]:
    (host,) = url.hosts()
    return {
        "HOST": unquote(host["host"] or "").strip("[]"),  # an IPv6 address has brackets only in a URL
        "PORT": host["port"] or 5432,
        "NAME": unquote((url.path or "").lstrip("/")),
        "USER": unquote(host["username"] or ""),
        "PASSWORD": unquote(host["password"] or ""),
        "OPTIONS": dict(parse_qsl(url.query or "")),
    }


def fleet_of(strategy: Strategy, web: Web, queue: Queue, numbers: Numbers) -> dict[str, tuple[int, int]]:
    """Return each service's processes and the most direct connections of each; with PgBouncer the web opens none."""
    each_web = numbers.size + numbers.overflow if strategy.is_bounded else web.web_threads
    return {
        "web": (web.web_processes, 0 if strategy.pool_mode else each_web),
        # The worker's main process may open a connection, in addition to its children.
        "worker": (queue.worker_processes + 1, 1),
        "beat": (1, 1),
    }
