"""The cost of a statement by its length, on this project's engine and on Django's, measured in turn in this process."""

import time
from collections.abc import Iterator
from contextlib import contextmanager
from statistics import median
from typing import Any

from django.db import DEFAULT_DB_ALIAS, connections
from django.db.backends.base.base import BaseDatabaseWrapper
from django.db.utils import load_backend

ENGINES = {"standard": "django.db.backends.postgresql", "poolhouse": "poolhouse.engines.postgresql"}
SIZES_BYTES = (1 << 10, 16 << 10, 256 << 10, 1 << 20)
ROUNDS = 15
WORDS = "It''s 3 o''clock; the_house has its temperature. "


def statements(size_bytes: int) -> dict[str, str]:
    """Return an INSERT of about this size with one literal, and one with many rows."""
    rows = ", ".join(f"({number}, 'host{number % 9}')" for number in range(size_bytes // 20))
    return {
        "one literal": f"INSERT INTO lab_long_statements (name) VALUES ('{WORDS * (size_bytes // len(WORDS))}')",  # noqa: S608 - no user input
        "rows": f"INSERT INTO lab_long_statements (id, name) VALUES {rows}",  # noqa: S608
    }


def compare(rounds: int = ROUNDS) -> dict[str, dict[str, float]]:
    """Return the medians of each statement in milliseconds on each engine, and their ratio."""
    with _wrappers() as wrappers:
        return {
            f"{kind}, {size_bytes >> 10} KiB": _compared(wrappers, sql, rounds)
            for size_bytes in SIZES_BYTES
            for kind, sql in statements(size_bytes).items()
        }


def _compared(wrappers: dict[str, BaseDatabaseWrapper], sql: str, rounds: int) -> dict[str, float]:
    took_s: dict[str, list[float]] = {name: [] for name in wrappers}
    for _ in range(rounds):
        for name, wrapper in wrappers.items():
            with wrapper.cursor() as cursor:
                cursor.execute("TRUNCATE lab_long_statements")
                text = f"{sql} -- {time.perf_counter_ns()}"  # a new text each time, so that no cache applies
                began_at = time.perf_counter()
                cursor.execute(text)
                took_s[name].append(time.perf_counter() - began_at)
    took_ms = {f"{name}_ms": round(median(taken) * 1000, 3) for name, taken in took_s.items()}
    return {**took_ms, "ratio": round(median(took_s["poolhouse"]) / median(took_s["standard"]), 3)}


@contextmanager
def _wrappers() -> Iterator[dict[str, BaseDatabaseWrapper]]:
    wrappers = {name: _wrapper(name, engine) for name, engine in ENGINES.items()}
    try:
        with wrappers["standard"].cursor() as cursor:
            cursor.execute("CREATE UNLOGGED TABLE lab_long_statements (id int, name text)")
        yield wrappers
        with wrappers["standard"].cursor() as cursor:
            cursor.execute("DROP TABLE lab_long_statements")
    finally:
        for wrapper in wrappers.values():
            wrapper.close()
            wrapper.close_pool()  # type: ignore[attr-defined]  # PostgreSQL's has it


def _wrapper(name: str, engine: str) -> BaseDatabaseWrapper:
    database: dict[str, Any] = connections[DEFAULT_DB_ALIAS].settings_dict
    options = {key: value for key, value in database["OPTIONS"].items() if key != "pool"}
    made: BaseDatabaseWrapper = load_backend(engine).DatabaseWrapper(
        {**database, "ENGINE": engine, "OPTIONS": options, "POOL_OPTIONS": {"POOL_SIZE": 1}}, f"lab_{name}"
    )
    return made
