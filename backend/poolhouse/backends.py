"""Which engine an alias has: by its class, since a project's own may be called anything."""

import sys
from functools import cache

from django.core.exceptions import ImproperlyConfigured
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend


@cache
def wrapper_class(engine: str) -> type[BaseDatabaseWrapper] | None:
    """Load an engine's class; None of one that cannot be loaded, as Django says to whoever uses its alias.

    No wrapper is made: each belongs to a thread.
    """
    try:
        loaded: type[BaseDatabaseWrapper] = load_backend(engine).DatabaseWrapper
    except (ImproperlyConfigured, ImportError):  # a driver that only other processes of the project have
        return None
    return loaded


def is_postgresql(engine: str) -> bool:
    """Say whether an engine speaks PostgreSQL."""
    wrapper = wrapper_class(engine)
    return wrapper is not None and wrapper.vendor == "postgresql"


def is_queuepool(engine: str) -> bool:
    """Say whether an engine has dj_db_conn_pool's pool, as this app's has."""
    return _descends(engine, "dj_db_conn_pool.core.mixins.core", "DatabasePoolWrapperMixin")


def is_lending(engine: str) -> bool:
    """Say whether an engine is this app's."""
    return _descends(engine, "poolhouse.engines.postgresql.base", "DatabaseWrapper")


@cache
def _descends(engine: str, module: str, name: str) -> bool:
    wrapper = wrapper_class(engine)
    ancestry = sys.modules.get(module)  # whoever descends from it has loaded it, and nobody else needs to
    return wrapper is not None and ancestry is not None and issubclass(wrapper, getattr(ancestry, name))
