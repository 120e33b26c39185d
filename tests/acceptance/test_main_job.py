"""The main job on real processes: a year of weather through the queue into the hypertable, and what the pools say."""

import csv
import json
import os
import signal
from concurrent.futures import ThreadPoolExecutor
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest

from config.env import Database, read
from sandbox.demo import MEASURES, weather_csv
from sandbox.isolation import connect
from sandbox.processes import peak_memory_bytes
from tests.acceptance.conftest import Running
from tests.conftest import await_that

INGEST = ("enqueue_ingest", str(weather_csv()), "--time", "time_hour", "--labels", "origin", "--values", *MEASURES)
POOLED, STANDARD = "poolhouse.engines.postgresql", "django.db.backends.postgresql"


def query(running: Running, sql: str) -> list[tuple[Any, ...]]:
    connection = connect(read(Database), name=running.stack.variables["DB_NAME"])
    try:
        with connection.cursor() as cursor:
            cursor.execute(sql)
            rows: list[tuple[Any, ...]] = cursor.fetchall()
            return rows
    finally:
        connection.close()


@pytest.fixture(scope="module")
def ingested(running: Running) -> str:
    """What enqueue_ingest printed for the weather, in batches of 2,000 rows."""
    return running.manage(*INGEST, "--batch-rows", "2000", "--wait").stdout


def test_the_readings_are_the_cells_of_the_data_set_that_are_not_empty(running: Running, ingested: str) -> None:
    with weather_csv().open(newline="") as file:
        rows = list(csv.DictReader(file))
    expected = sum(row[measure] not in ("", "NA") for row in rows for measure in MEASURES)
    assert (len(rows), expected) == (26_115, 211_061)
    assert query(running, "SELECT count(*) FROM reading") == [(expected,)]
    assert query(running, "SELECT count(*) FROM (SELECT DISTINCT series_id, time FROM reading) r") == [(expected,)]
    assert f"{expected:,} readings inserted" in ingested


def test_the_values_are_those_of_the_data_set(running: Running, ingested: str) -> None:
    loaded = {
        (metric, origin, time.isoformat().replace("+00:00", "Z")): value
        for metric, origin, time, value in query(
            running,
            "SELECT metric, labels ->> 'origin', time, value FROM reading JOIN series ON series.id = series_id",
        )
    }
    with weather_csv().open(newline="") as file:
        expected = {
            (measure, row["origin"], row["time_hour"]): float(row[measure])
            for row in csv.DictReader(file)
            for measure in MEASURES
            if row[measure] not in ("", "NA")
        }
    assert loaded == expected


def test_the_job_is_done_and_every_batch_is_in_the_ledger(running: Running, ingested: str) -> None:
    (job,) = json.loads(running.manage("ingest_status", "--json").stdout)
    assert (job["state"], job["batches"], job["done"], job["rows"], job["rejected"]) == ("done", 14, 14, 26_115, 0)


def test_the_question_is_answered_from_the_data(running: Running, ingested: str) -> None:
    answer = running.manage("bucket_means", "temp", "--by", "origin", "--json").stdout
    with weather_csv().open(newline="") as file:
        january = [
            float(row["temp"])
            for row in csv.DictReader(file)
            if row["origin"] == "JFK" and row["time_hour"].startswith("2013-01") and row["temp"] != "NA"
        ]
    (mean,) = (m for m in json.loads(answer) if m["label"] == "JFK" and m["bucket"].startswith("2013-01"))
    assert mean["readings"] == len(january)
    assert mean["mean"] == pytest.approx(sum(january) / len(january))


def test_a_second_load_of_the_same_file_inserts_nothing(running: Running, ingested: str) -> None:
    again = running.manage(*INGEST, "--wait").stdout
    assert "0 readings inserted, 211,061 skipped as duplicates" in again
    assert query(running, "SELECT count(*) FROM reading") == [(211_061,)]


def test_the_running_web_has_the_pool_and_the_running_worker_has_the_standard_engine(running: Running) -> None:
    engines: dict[str, set[str]] = {}
    for process in running.status()["processes"]:
        engines.setdefault(process["service"], set()).update(pool["engine"] for pool in process["pools"])
    assert engines == {"web": {POOLED}, "worker": {STANDARD}, "beat": {STANDARD}}
    assert running.get("/")["connection"]["engine"] == POOLED


def test_the_status_shows_the_pools_of_the_web_s_processes_as_the_server_sees_them(running: Running) -> None:
    with ThreadPoolExecutor(8) as visitors:
        served_by = {answer["process"] for answer in visitors.map(lambda _: running.get("/"), range(60))}

    def the_web_s_reports_agree_with_the_server() -> bool:
        web = [process for process in running.status()["processes"] if process["service"] == "web"]
        held = [sum(pool["in_use"] + pool["idle"] for pool in process["pools"]) for process in web]
        assert {process["name"] for process in web} >= served_by
        assert all((pool["size"], pool["max"]) == (5, 10) for process in web for pool in process["pools"])
        return len(web) == 2 and min(held) >= 2 and held == [len(process["server_connections"]) for process in web]

    await_that(the_web_s_reports_agree_with_the_server)


def test_every_connection_says_service_host_and_process(running: Running) -> None:
    running.get("/")
    host = os.uname().nodename
    rows = query(
        running,
        "SELECT application_name FROM pg_stat_activity "
        "WHERE datname = current_database() AND backend_type = 'client backend' AND pid <> pg_backend_pid()",
    )
    names = {name for (name,) in rows}
    reported = {process["name"] for process in running.status()["processes"]}
    assert names
    assert names <= reported
    assert {name.rpartition(":")[0] for name in names} <= {f"web@{host}", f"worker@{host}"}


def test_each_process_of_the_worker_is_labelled_as_itself_after_the_fork(running: Running) -> None:
    workers = [process for process in running.status()["processes"] if process["service"] == "worker"]
    assert len(workers) == 3, "a parent and two children"
    assert len({process["pid"] for process in workers}) == 3
    (parent,) = (process["pid"] for process in workers if _parent_of(process["pid"]) not in _pids(workers))
    assert {_parent_of(pid) for pid in _pids(workers) - {parent}} == {parent}


def _pids(processes: list[dict[str, Any]]) -> set[int]:
    return {process["pid"] for process in processes}


def _parent_of(pid: int) -> int:
    return int(Path(f"/proc/{pid}/stat").read_text().rsplit(")")[1].split()[1])


def test_a_worker_s_process_keeps_its_connection_from_task_to_task(running: Running, ingested: str) -> None:
    def backend_pids() -> set[int]:
        rows = query(running, "SELECT pid FROM pg_stat_activity WHERE application_name LIKE 'worker@%'")
        return {pid for (pid,) in rows}

    before = backend_pids()
    assert before, "CONN_MAX_AGE is an hour"
    running.manage(*INGEST, "--batch-rows", "2000", "--wait")
    assert before <= backend_pids()


def test_the_plain_status_is_a_table_by_service(running: Running) -> None:
    out = running.manage("db_pool_status").stdout
    assert out.startswith("OK\nPostgreSQL 17")
    assert [line.split()[0] for line in out.splitlines() if line.split()[:1] in (["beat"], ["web"], ["worker"])] == [
        "beat",
        "web",
        "worker",
    ]


def test_a_process_that_is_killed_disappears_and_its_successor_appears(running: Running) -> None:
    before = {process["pid"] for process in running.status()["processes"] if process["service"] == "web"}
    victim = min(before)
    os.kill(victim, signal.SIGKILL)

    def is_replaced() -> bool:
        now = {process["pid"] for process in running.status()["processes"] if process["service"] == "web"}
        return victim not in now and len(now) == 2

    await_that(is_replaced)


def test_after_a_reload_the_new_processes_report_and_the_old_ones_are_gone(running: Running) -> None:
    def web_pids() -> set[int]:
        return {process["pid"] for process in running.status()["processes"] if process["service"] == "web"}

    before = web_pids()
    (gunicorn,) = {int(Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()[1]) for pid in before}
    os.kill(gunicorn, signal.SIGHUP)
    await_that(lambda: len(web_pids()) == 2 and not before & web_pids())


def test_a_bad_row_is_kept_and_shown_with_its_place(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "mixed.csv"
    path.write_text("time,device,load\n2024-05-01T00:00Z,a,1\nsoon,a,2\n2024-05-01T01:00Z,a,3\n")
    columns = ("--time", "time", "--labels", "device", "--values", "load")
    out = running.manage("enqueue_ingest", str(path), *columns, "--wait").stdout
    assert "2 readings inserted" in out
    assert "1 of 3 rows rejected" in out
    job_id = out.split()[1].rstrip(":")
    listed = running.manage("ingest_status", job_id, "--rejects").stdout
    assert f"{path}:3: column 'time': expected a time such as 2013-01-31T06:00:00Z (ISO 8601), got 'soon'" in listed


def test_misuse_exits_with_2_and_says_where(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "less.csv"
    path.write_text("time,device\n")
    answer = running.manage("enqueue_ingest", str(path), "--time", "time", "--values", "load", check=False)
    assert answer.returncode == 2
    assert answer.stderr == f"CommandError: {path}:1: missing column 'load'; the file has the columns time, device\n"


def test_generated_readings_can_be_loaded_at_once(running: Running) -> None:
    span = ("--series", "50", "--rate", "1/s", "--from", "2031-01-01", "--to", "2031-01-01T00:20")
    shown = running.manage("generate_readings", *span, "--enqueue", "--wait").stdout
    assert "60,000 rows enqueued" in shown
    assert "done in" in shown
    assert "60,000 readings inserted" in shown


def test_a_worker_s_memory_is_bounded_by_the_batch_and_not_by_the_file(running: Running, tmp_path: Path) -> None:
    path = tmp_path / "large.csv"
    devices = [f"{number:03}-{'x' * 1000}" for number in range(200)]
    with path.open("w") as file:
        file.write("time,device,value\n")
        for hour in range(1000):
            moment = datetime(2035, 1, 1, tzinfo=UTC) + timedelta(hours=hour)
            file.writelines(f"{moment:%Y-%m-%dT%H:%M:%SZ},{device},{hour}\n" for device in devices)
    assert path.stat().st_size > 200_000_000
    columns = ("--time", "time", "--labels", "device", "--values", "value")
    ingest = ("enqueue_ingest", str(path), *columns, "--batch-rows", "20000", "--wait")
    assert "200,000 readings inserted" in running.manage(*ingest).stdout
    peaks = [peak_memory_bytes(report.pid) for report in running.stack.reports() if report.service == "worker"]
    assert len(peaks) == 3
    assert max(peaks) < 300 << 20
