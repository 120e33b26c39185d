"""DATABASES from the environment: the strategy that it names for the web, and who goes past PgBouncer."""

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

# config.start says what a process was started as; SERVICE_NAME says only what it is called.
_is_command = False


def get_database_settings() -> dict[str, Any]:
    """Make Django's DATABASES for this process, and see to it that they are served by the strategy's driver.

    Raises:
        BadEnvironment: the variables do not go together.

    """
    config = get_pgbouncer_config() if should_use_pgbouncer() else get_database_config()
    _use_driver(_strategy_here().driver)
    return {"default": config}


def get_database_config() -> dict[str, Any]:
    """Make the entry of DATABASES that goes to the database server itself, whatever is in front of it.

    Raises:
        BadEnvironment: the variables do not go together.

    """
    get_strategy()
    return direct_config(STRATEGIES[_strategy_here().keeper], _database_here(), development=_is_development())


def get_pgbouncer_config() -> dict[str, Any]:
    """Make the entry of DATABASES that goes through PgBouncer, for a process that may or may not use it.

    Raises:
        BadEnvironment: the variables do not go together, or nothing can be put in front of PgBouncer.

    """
    database, pooler = read(Database), read(Pooler)
    named = strategy_of(database, pooler.model_copy(update={"use_pgbouncer": True}), read(Monitor))
    return pgbouncer_config(STRATEGIES[named], database, pooler, read(Monitor), development=_is_development())


def should_use_pgbouncer() -> bool:
    """Say whether this process goes through PgBouncer: where the strategy does, the web, and the web alone."""
    return _strategy_here().pool_mode is not None


def get_strategy() -> str:
    """Name the web's strategy, a key of STRATEGIES.

    Raises:
        BadEnvironment: the variables do not go together.

    """
    return strategy_of(read(Database), read(Pooler), read(Monitor))


def get_console_url() -> str:
    """Give PgBouncer's console as a URL, for the monitor; empty where it is not to be asked."""
    monitor = read(Monitor)
    if STRATEGIES[get_strategy()].pool_mode is not None and read(Pooler).pgbouncer_url is None:
        monitor = _with_host(monitor)
    url, tls = monitor.pgbouncer_url, _tls_to_pgbouncer(read(Database), monitor)
    return f"{url}?{urlencode(tls)}" if url and tls else url


def go_directly() -> None:
    """Say that this process is a command, which goes past PgBouncer and whose statements may take their time."""
    global _is_command  # noqa: PLW0603 - a process is one thing
    _is_command = True


def get_fleet() -> dict[str, tuple[int, int]]:
    """Say how many processes each service has, and how many connections to the server itself each opens at most."""
    return fleet_of(
        STRATEGIES[get_strategy()],
        read(Web),
        read(Queue),
        numbers_of(read(Database), development=_is_development()),
    )


def get_pgbouncer_connections() -> int:
    """Say how many connections to the server PgBouncer opens at most, for the web."""
    return 0 if STRATEGIES[get_strategy()].pool_mode is None else read(Pooler).most


def _strategy_here() -> Strategy:
    """Give this process's strategy.

    The worker and beat have the standard backend: a prefork worker forks, and a pool must not be shared over a fork;
    nor would one help there, since each child runs one task at a time on one connection.
    """
    strategy = STRATEGIES[get_strategy()]
    if read(Deployment).celery_worker_running:
        return STRATEGIES[WORKER_STRATEGY]
    return STRATEGIES[strategy.keeper] if _is_command else strategy


def _database_here() -> Database:
    """Give the database as this process uses it.

    A migration builds an index for as long as that takes. A command's 0 is said to the server, not left out, for there
    the role has a statement timeout of its own.
    """
    database = read(Database)
    return database.model_copy(update={"db_statement_timeout": 0}) if _is_command else database


def _is_development() -> bool:
    return read(Deployment).django_env == "development"


def _use_driver(driver: str) -> None:
    """Let Django and SQLAlchemy find the wanted driver: both take psycopg 3 wherever it can be imported."""
    if driver == "psycopg2":
        sys.modules.setdefault("psycopg", None)  # type: ignore[arg-type]  # then importing it fails


# What follows from the sections alone.


def strategy_of(database: Database, pooler: Pooler, monitor: Monitor) -> str:
    """Name the strategy that the variables together ask for.

    Raises:
        BadEnvironment: they do not go together; says why, and what would.

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
                f"USE_PGBOUNCER=true, and DB_POOL_STRATEGY={keeper.name!r}: nobody has tried that pool in front of "
                f"PgBouncer. Set DB_POOL_STRATEGY to {_one_of(allowed)}, or one that names PgBouncer itself "
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
            f"USE_PGBOUNCER=false, and DB_POOL_STRATEGY={given.name!r} goes through PgBouncer. "
            f"Leave USE_PGBOUNCER empty, or set DB_POOL_STRATEGY to {given.keeper}."
        )
    if strategy.pool_mode is None and pooler.use_pgbouncer is None and pooler.pgbouncer_url is not None:
        found.append(
            f"PGBOUNCER_URL is set, and DB_POOL_STRATEGY={given.name!r} does not go through PgBouncer. "
            f"Set USE_PGBOUNCER to true or false, or DB_POOL_STRATEGY to {_one_of(_through_pgbouncer())}."
        )
    if given.keeper == "persistent" and database.db_conn_max_age == 0:
        found.append(
            f"DB_CONN_MAX_AGE=0, and DB_POOL_STRATEGY={given.name!r} keeps connections for so long. "
            f"Set DB_CONN_MAX_AGE to 1 or more, or DB_POOL_STRATEGY to {replace(given, keeper='none').name}."
        )
    if not _is_installed(strategy.driver):
        found.append(
            f"DB_POOL_STRATEGY={strategy.name!r} needs the driver {strategy.driver}, which is not installed. "
            f"Install it, or choose another strategy."
        )
    if strategy.pool_mode is not None:
        found += _problems_behind(strategy, database, pooler, monitor)
    return found


def _problems_behind(strategy: Strategy, database: Database, pooler: Pooler, monitor: Monitor) -> list[str]:
    found = []
    if database.database_url is not None and pooler.pgbouncer_url is None and not monitor.pgbouncer_host:
        found.append(
            f"DB_POOL_STRATEGY={strategy.name!r} goes through PgBouncer, and DATABASE_URL names a server of your own. "
            "Say where its PgBouncer is, in PGBOUNCER_URL or in PGBOUNCER_HOST and PGBOUNCER_PORT."
        )
    urls = {"DATABASE_URL": database.database_url, "PGBOUNCER_URL": pooler.pgbouncer_url}
    for name, url in urls.items():
        if url is not None and "options" in dict(parse_qsl(url.query or "")):
            found.append(
                f"{name} has ?options=, and DB_POOL_STRATEGY={strategy.name!r} goes through PgBouncer, which does not "
                "pass them on. Set them where the server keeps them: ALTER ROLE … IN DATABASE … SET …"
            )
    return found


def _is_installed(driver: str) -> bool:
    is_hidden = driver in sys.modules and sys.modules[driver] is None  # from Django, by another strategy's turn
    return is_hidden or find_spec(driver) is not None


def _through_pgbouncer() -> list[str]:
    return [name for name, row in STRATEGIES.items() if row.pool_mode is not None]


def _one_of(names: list[str]) -> str:
    return f"{', '.join(names[:-1])} or {names[-1]}"


def numbers_of(database: Database, *, development: bool) -> Numbers:
    """Give the pool's numbers; in development, their _DEV variants where those are set."""

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
    """Make the entry of a strategy that goes to the server itself."""
    server = _direct_server(database)
    server["OPTIONS"] = {**database.tls, **server["OPTIONS"]}
    timeout = f"-c statement_timeout={database.db_statement_timeout}"
    server["OPTIONS"]["options"] = f"{timeout} {server['OPTIONS'].get('options', '')}".strip()
    return _config(strategy, server, database, development=development)


def pgbouncer_config(
    strategy: Strategy, database: Database, pooler: Pooler, monitor: Monitor, *, development: bool
) -> dict[str, Any]:
    """Make the entry of a strategy that goes through PgBouncer; the statement timeout is the role's, as it starts."""
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
        "HOST": unquote(host["host"] or "").strip("[]"),  # an IPv6 address has brackets in a URL alone
        "PORT": host["port"] or 5432,
        "NAME": unquote((url.path or "").lstrip("/")),
        "USER": unquote(host["username"] or ""),
        "PASSWORD": unquote(host["password"] or ""),
        "OPTIONS": dict(parse_qsl(url.query or "")),
    }


def fleet_of(strategy: Strategy, web: Web, queue: Queue, numbers: Numbers) -> dict[str, tuple[int, int]]:
    """Say who opens how many connections to the server at most; behind PgBouncer the web opens none."""
    each_web = numbers.size + numbers.overflow if strategy.is_bounded else web.web_threads
    return {
        "web": (web.web_processes, 0 if strategy.pool_mode else each_web),
        # The worker's main process may connect as well as its children.
        "worker": (queue.worker_processes + 1, 1),
        "beat": (1, 1),
    }
