"""The database driver under a Django alias: psycopg2, or psycopg 3."""

from types import ModuleType
from typing import TYPE_CHECKING, cast

from django.db import Error, connections

if TYPE_CHECKING:  # it imports a driver, which a project on another database need not have
    from django.db.backends.postgresql.base import DatabaseWrapper


def driver(alias: str) -> ModuleType:
    """Give the driver's module."""
    return cast("DatabaseWrapper", connections[alias]).Database


def driver_errors(alias: str) -> tuple[type[Exception], ...]:
    """Give what the driver raises, bare and as Django wraps it."""
    return (Error, driver(alias).Error)
