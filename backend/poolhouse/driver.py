"""The database driver under a Django alias: psycopg2, or psycopg 3."""

from types import ModuleType
from typing import TYPE_CHECKING, Any, cast

from django.db import Error, connections

from poolhouse.identity import current

if TYPE_CHECKING:  # it imports a driver, which a project on another database need not have
    from django.db.backends.postgresql.base import DatabaseWrapper


def driver(alias: str) -> ModuleType:
    """Give the driver's module."""
    return cast("DatabaseWrapper", connections[alias]).Database


def driver_errors(alias: str) -> tuple[type[Exception], ...]:
    """Give what the driver raises, bare and as Django wraps it."""
    return (Error, driver(alias).Error)


def own_connection_params(alias: str) -> dict[str, Any]:
    """Give the parameters of a connection outside every pool, under the monitor's name."""
    params = connections.create_connection(alias).get_connection_params()
    params.pop("pool", None)
    return {**params, "application_name": current("monitor").name}
