"""Engines are recognized by their classes, not by their names."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from django.db import connections

from poolhouse.backends import is_lending, is_postgresql, is_queuepool
from poolhouse.checks import check_settings
from poolhouse.identity import current, label_connections
from poolhouse.process.pools import LENDING_ENGINE, is_pooled, pool_states

STANDARD = "django.db.backends.postgresql"
PLAIN_POOLED = "dj_db_conn_pool.backends.postgresql"
BASES = {"shop_lending": LENDING_ENGINE, "shop_plain": PLAIN_POOLED, "shop_own": STANDARD}

Put = Callable[..., dict[str, Any]]


@pytest.fixture(scope="module", autouse=True)
def engines(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Define a project's own engines, each a subclass, none with PostgreSQL in its name."""
    folder = tmp_path_factory.mktemp("engines")
    for name, base in BASES.items():
        _write(folder / name, f"from {base} import base\nclass DatabaseWrapper(base.DatabaseWrapper): pass\n")
    _write(folder / "not_postgresql", "from django.db.backends.sqlite3.base import DatabaseWrapper\n")
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield


def _write(folder: Path, base: str) -> None:
    folder.mkdir()
    (folder / "__init__.py").touch()
    (folder / "base.py").write_text(base)


@pytest.fixture
def put(monkeypatch: pytest.MonkeyPatch) -> Iterator[Put]:
    """Add an alias to the project."""

    def put_alias(engine: str, **settings: Any) -> dict[str, Any]:
        database = {**connections.settings["default"], "OPTIONS": {}, "ENGINE": engine, **settings}
        monkeypatch.setattr(connections, "settings", {**connections.settings, "shop": database})
        return database

    yield put_alias
    if hasattr(connections._connections, "shop"):  # type: ignore[attr-defined]
        del connections["shop"]


@pytest.mark.parametrize(
    ("engine", "expected"),
    [
        (STANDARD, (True, False, False)),
        ("django.db.backends.postgresql_psycopg2", (True, False, False)),
        (PLAIN_POOLED, (True, True, False)),
        (LENDING_ENGINE, (True, True, True)),
        ("shop_own", (True, False, False)),
        ("shop_plain", (True, True, False)),
        ("shop_lending", (True, True, True)),
        ("django.db.backends.sqlite3", (False, False, False)),
        ("django.db.backends.dummy", (False, False, False)),
        ("not_postgresql", (False, False, False)),
        ("no_such.postgresql", (False, False, False)),
    ],
)
def test_the_kind_of_an_engine_follows_from_its_base_class(engine: str, expected: tuple[bool, bool, bool]) -> None:
    assert (is_postgresql(engine), is_queuepool(engine), is_lending(engine)) == expected


@pytest.mark.parametrize("engine", [*BASES, "not_postgresql"])
def test_postgresql_connections_are_labelled_with_engines_of_any_name(put: Put, engine: str) -> None:
    database = put(engine)
    label_connections()
    assert database["OPTIONS"].get("application_name") == (current().name if engine in BASES else None)


@pytest.mark.parametrize(
    ("engine", "kind", "most"),
    [("shop_lending", "queuepool", 5), ("shop_plain", "queuepool", 5), ("shop_own", "per-thread", None)],
)
def test_a_subclass_reports_what_its_base_engine_does(put: Put, engine: str, kind: str, most: int | None) -> None:
    database = put(engine, POOL_OPTIONS={"POOL_SIZE": 3, "MAX_OVERFLOW": 2})
    (state,) = (state for state in pool_states() if state.alias == "shop")
    assert (state.kind, state.max, state.engine) == (kind, most, engine)
    assert is_pooled(database) == (kind == "queuepool")
    assert state.looks_for_leaks == (engine == "shop_lending")


@pytest.mark.parametrize(
    ("engine", "pool_options", "problem"),
    [
        ("shop_lending", {"POOL_SIZE": 3, "MIN_SIZE": 1}, None),
        ("shop_lending", {"POOL_SIZ": 3}, "unknown key 'POOL_SIZ'; did you mean POOL_SIZE?"),
        ("shop_plain", {"POOL_SIZE": 3}, None),
        ("shop_plain", {"MIN_SIZE": 3}, "shop_plain ignores the unknown key 'MIN_SIZE'"),
        ("shop_own", {"ITS_OWN": 3}, None),  # it may read them
        (STANDARD, {"POOL_SIZE": 3}, f"{STANDARD} ignores POOL_OPTIONS"),
    ],
)
def test_pool_options_are_checked_for_the_engine_that_uses_them(
    put: Put, engine: str, pool_options: dict[str, int], problem: str | None
) -> None:
    put(engine, POOL_OPTIONS=pool_options)
    found = [message.msg for message in check_settings(None) if message.id == "poolhouse.E001"]
    assert found == ([f"DATABASES['shop']['POOL_OPTIONS']: {problem}."] if problem else [])
