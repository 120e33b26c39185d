"""The findings on hypertables and their effect, on TimescaleDB's Apache edition."""

from collections.abc import Iterator

import pytest
from django.db import connections

from poolhouse.helpers import Finding, hypertables, optimize_timescaledb_queries
from tests.integration.test_engine import MakePool, _database, pool_of
from tests.integration.test_helpers import one, other_connection, run
from tests.plugin import superuser_sql

__all__ = ["_database", "pool_of"]

TABLE = "public.metrics"


def make(columns: str, chunk: str, rows: str = "") -> None:
    run(f"CREATE TABLE metrics (time timestamptz NOT NULL, {columns}, value float8)")
    run(f"SELECT create_hypertable('metrics', by_range('time', INTERVAL '{chunk}'))")
    if rows:
        run(f"INSERT INTO metrics {rows}")


def hourly(days: int, devices: int) -> str:
    return (
        "SELECT t, d, random() FROM generate_series(TIMESTAMPTZ '2024-01-01', "
        f"TIMESTAMPTZ '2024-01-01' + INTERVAL '{days} days' - INTERVAL '1 hour', '1 hour') AS t, "
        f"generate_series(1, {devices}) AS d"
    )


@pytest.fixture(autouse=True)
def _dropped() -> Iterator[None]:
    yield
    run("DROP TABLE IF EXISTS metrics")


def found(**arguments: object) -> dict[str, Finding]:
    findings = [one for one in optimize_timescaledb_queries(**arguments) if one.hypertable == TABLE]  # type: ignore[arg-type]
    return {finding.kind: finding for finding in findings}


def indexes() -> set[str]:
    return {definition for (definition,) in run("SELECT indexdef FROM pg_indexes WHERE tablename = 'metrics'")}


def test_without_apply_nothing_is_changed() -> None:
    make("device_id int NOT NULL", "1 day", hourly(120, 2))
    before = indexes()
    seen = found()
    assert set(seen) == {"index", "statistics", "chunk_interval"}
    assert {finding.outcome for finding in seen.values()} == {"found"}
    assert seen["index"].remedy == (
        f'CREATE INDEX ON {TABLE} ("device_id", "time" DESC) WITH (timescaledb.transaction_per_chunk)'
    )
    assert seen["statistics"].text.startswith("120 of 120 chunks were never analyzed")
    assert "120 chunks of 24 h" in seen["chunk_interval"].text
    assert seen["chunk_interval"].remedy == f"SELECT set_chunk_time_interval('{TABLE}', INTERVAL '168 hours')"
    assert indexes() == before
    assert found() == seen, "looking again finds the same"


def test_an_applied_finding_disappears_and_the_others_stay() -> None:
    make("device_id int NOT NULL", "1 day", hourly(120, 2))
    seen = found(apply=["index", "chunk_interval"])
    assert {kind: finding.outcome for kind, finding in seen.items()} == {
        "index": "applied",
        "statistics": "found",
        "chunk_interval": "applied",
    }
    assert any('(device_id, "time" DESC)' in definition for definition in indexes())
    assert set(found(apply=["index", "statistics", "chunk_interval"])) == {"statistics"}, "no interval grows each time"
    assert found() == {}


def test_an_index_on_series_and_time_is_recognized_in_either_direction() -> None:
    make("device_id int NOT NULL", "1 day", hourly(1, 1))
    run("CREATE UNIQUE INDEX ON metrics (device_id, time)")
    assert "index" not in found()
    assert one("SELECT count(*) FROM pg_index WHERE indrelid = 'metrics'::regclass") == 2


@pytest.mark.parametrize(
    "index", ["(time DESC, device_id)", "(device_id, time) WHERE value > 0", "(device_id) INCLUDE (time)"]
)
def test_other_indexes_do_not_count(index: str) -> None:
    make("device_id int NOT NULL", "1 day", hourly(1, 1))
    run(f"CREATE INDEX ON metrics {index}")
    assert "index" in found()


def test_with_several_series_columns_there_is_no_remedy() -> None:
    make("device_id int NOT NULL, place text", "1 day")
    seen = found(apply=["index"])["index"]
    assert "(device_id or place)" in seen.text
    assert (seen.remedy, seen.outcome) == ("", "found")
    assert len(indexes()) == 1


def test_a_foreign_key_is_preferred_as_the_series_column() -> None:
    run("CREATE TABLE customer (id int PRIMARY KEY)")
    make("device_id int NOT NULL, customer int REFERENCES customer", "1 day")
    remedy = found()["index"].remedy
    run("DROP TABLE metrics")
    run("DROP TABLE customer")
    assert '("customer", "time" DESC)' in remedy


def test_chunks_that_are_too_large_get_a_shorter_interval(monkeypatch: pytest.MonkeyPatch) -> None:
    make("device_id int NOT NULL", "7 days", hourly(14, 20))
    assert "chunk_interval" not in found()
    monkeypatch.setattr(hypertables, "MEMORY_SHARE", 100_000 / (512 << 20))  # of shared_buffers: 100 kB
    seen = found(apply=["chunk_interval"])["chunk_interval"]
    assert "chunks of 168 h are too large" in seen.text
    assert seen.outcome == "applied"
    interval = "SELECT extract(epoch FROM time_interval)::int / 3600 FROM timescaledb_information.dimensions"
    assert one(f"{interval} WHERE hypertable_name = 'metrics'") in (12, 24)
    assert "chunk_interval" not in found(), "what is there cannot be made smaller"


def test_applying_stops_at_the_lock_timeout_and_reports_it(monkeypatch: pytest.MonkeyPatch) -> None:
    make("device_id int NOT NULL", "1 day", hourly(1, 1))
    monkeypatch.setattr(hypertables, "LOCK_TIMEOUT_MS", 50)
    with other_connection() as writer:
        writer.execute("BEGIN; INSERT INTO metrics VALUES ('2024-01-01', 9, 0)")
        assert "lock timeout" in found(apply=["index"])["index"].outcome
        writer.execute("ROLLBACK")  # it was given up while the writer held its lock
    assert found(apply=["index"])["index"].outcome == "applied"
    assert "index" not in found()


def test_of_several_processes_only_one_applies() -> None:
    make("device_id int NOT NULL", "1 day", hourly(1, 1))
    with other_connection() as other:
        other.execute("SELECT pg_advisory_lock(hashtext('poolhouse.helpers.hypertables'))")
        assert found(apply=["statistics"])["statistics"].outcome == "another process is applying findings"
    assert found(apply=["statistics"])["statistics"].outcome == "applied"


def test_without_timescaledb_there_are_no_findings(pool_of: MakePool) -> None:
    alias = pool_of("django.db.backends.postgresql")
    superuser_sql("CREATE DATABASE plain TEMPLATE template0")
    connections.settings[alias]["NAME"] = "plain"
    try:
        assert optimize_timescaledb_queries(alias, apply=["index"]) == []
    finally:
        connections[alias].close()
        superuser_sql("DROP DATABASE plain")


def test_an_unknown_kind_is_rejected() -> None:
    with pytest.raises(
        ValueError, match="apply: expected kinds out of index, statistics, chunk_interval, got \\['indices'\\]"
    ):
        optimize_timescaledb_queries(apply=["indices"])  # type: ignore[list-item]


def test_a_query_for_one_series_reads_less_with_the_index() -> None:
    """Print the figures of docs/app/helpers.md: run with -rP."""
    make("device_id int NOT NULL", "1 day", hourly(days := 60, devices := 1000))
    run("DELETE FROM metrics WHERE device_id = 500 AND time > '2024-01-02'")  # it has been silent ever since
    run("VACUUM ANALYZE metrics")
    questions = {
        "the mean of a series": "SELECT avg(value) FROM metrics WHERE device_id = 400",
        "the last reading of a series that is silent": (
            "SELECT value FROM metrics WHERE device_id = 500 ORDER BY time DESC LIMIT 1"
        ),
    }
    before = {name: explained(sql) for name, sql in questions.items()}
    assert found(apply=["index"])["index"].outcome == "applied"
    after = {name: explained(sql) for name, sql in questions.items()}
    for name in questions:
        (pages, ms), (pages_then, ms_then) = before[name], after[name]
        print(f"{name}: {ms:.1f} ms, then {ms_then:.1f} ms; {days * 24 * devices:,} rows")  # noqa: T201
        assert pages_then < pages / 5


def explained(sql: str) -> tuple[int, float]:
    """Return how many pages a query reads, and its fastest time of seven runs in milliseconds."""
    plans = [one(f"EXPLAIN (ANALYZE, BUFFERS, TIMING OFF, FORMAT JSON) {sql}")[0] for _ in range(7)]
    plan = plans[-1]["Plan"]
    return plan["Shared Hit Blocks"] + plan["Shared Read Blocks"], min(found["Execution Time"] for found in plans)
