"""Which kind of engine an alias has: told by its class, since a project's own engine can have any name."""

import sys
from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend


@cache
def wrapper_class(engine: str) -> type[BaseDatabaseWrapper] | None:
    """Return an engine's wrapper class, or None if it cannot be loaded.

    Django raises the error when the alias is used. No wrapper is made here: each belongs to a thread.
    """
    try:
        loaded: type[BaseDatabaseWrapper] = load_backend(engine).DatabaseWrapper
    except (ImproperlyConfigured, ImportError):  # a driver that only other processes of the project have installed
        return None
    return loaded


def is_postgresql(engine: str) -> bool:
    """Return True if an engine speaks PostgreSQL."""
    wrapper = wrapper_class(engine)
    return wrapper is not None and wrapper.vendor == "postgresql"


def is_queuepool(engine: str) -> bool:
    """Return True if an engine uses dj_db_conn_pool's pool, as this app's engine does."""
    return _descends(engine, "dj_db_conn_pool.core.mixins.core", "DatabasePoolWrapperMixin")


def is_lending(engine: str) -> bool:
    """Return True if an engine is this app's or inherits from it."""
    return _descends(engine, "poolhouse.engines.postgresql.base", "DatabaseWrapper")


@cache
def _descends(engine: str, module: str, name: str) -> bool:
    wrapper = wrapper_class(engine)
    ancestry = sys.modules.get(
        module
    )  # an engine that inherits from it has already imported it, and other engines need not
    return wrapper is not None and ancestry is not None and issubclass(wrapper, getattr(ancestry, name))
