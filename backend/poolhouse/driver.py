"""The database driver of a Django alias: psycopg2 or psycopg 3."""

from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from django.db import DEFAULT_DB_ALIAS, Error, connections

from poolhouse.backends import is_postgresql
from poolhouse.conf import options
from poolhouse.identity import current

if TYPE_CHECKING:  # it imports a driver, which a project on another database need not have
    from django.db.backends.postgresql.base import DatabaseWrapper


def postgresql_aliases() -> list[str]:
    """Return the PostgreSQL aliases of DATABASES, the default one first."""
    found = [alias for alias, database in connections.settings.items() if is_postgresql(database["ENGINE"])]
    return sorted(found, key=lambda alias: alias != DEFAULT_DB_ALIAS)


def require_postgresql(alias: str) -> None:
    """Check an alias.

    Raises:
        KeyError: DATABASES has no PostgreSQL database with this alias.
    """
    if alias not in postgresql_aliases():
        raise KeyError(not_postgresql(alias))


def not_postgresql(alias: str) -> str:
    """Return the error text for an alias that DATABASES does not have, or that is another database's."""
    known = ", ".join(postgresql_aliases()) or "none (DATABASES has no PostgreSQL database)"
    return f"expected the alias of a PostgreSQL database, got {alias!r}; allowed: {known}"


def driver(alias: str) -> ModuleType:
    """Return the module of the driver, psycopg2 or psycopg."""
    return cast("DatabaseWrapper", connections[alias]).Database


def driver_errors(alias: str) -> tuple[type[Exception], ...]:
    """Return the error classes that the driver raises, bare and wrapped by Django."""
    return (Error, driver(alias).Error)


def own_connection_params(alias: str, *, directly: bool = False) -> dict[str, Any]:
    """Return the parameters of a connection outside every pool, with the monitor's name.

    Args:
        alias: of the database.
        directly: connect to the server itself, by POOLHOUSE["DIRECT"], if the alias goes through PgBouncer.
    """
    wrapper = connections.create_connection(alias)
    if directly:
        wrapper.settings_dict = {**wrapper.settings_dict, **options().DIRECT.get(alias, {})}
    params = wrapper.get_connection_params()
    params.pop("pool", None)
    return {**params, "application_name": current("monitor").name}
