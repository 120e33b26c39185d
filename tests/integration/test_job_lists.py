"""Lists of jobs and batches, in the admin and in the terminal: as many queries for thousands of rows as for a few."""

import json
import re
from collections.abc import Callable
from itertools import product

import pytest
from django.core.management import CommandError
from django.db import connection
from django.test import Client
from django.test.utils import CaptureQueriesContext
from django.utils import timezone

from telemetry import admin
from telemetry.job_states import JOB_STATES, count_jobs_by_state, jobs_in_state
from telemetry.management.commands import ingest_status
from telemetry.models import IngestBatch, IngestFile, IngestJob, Series
from telemetry.queries import job_progress
from tests.integration.conftest import run

pytestmark = pytest.mark.django_db
State = IngestBatch.State
MANY = 3000


def make_jobs(count: int) -> list[IngestJob]:
    columns = {"label_columns": [], "value_columns": ["load"], "null_values": []}
    jobs = [IngestJob(format="csv", time_column="time", created_at=timezone.now(), **columns) for _ in range(count)]
    return IngestJob.objects.bulk_create(jobs)


def make_job(*states: str) -> IngestJob:
    """Create a job with a batch in each of the states, each with its own file."""
    (job,) = make_jobs(1)
    names = [f"part-{number}.csv" for number in range(len(states))]
    files = IngestFile.objects.bulk_create(
        IngestFile(job=job, name=name, location=f"/data/{name}", size_bytes=1, mtime_ns=1) for name in names
    )
    now = timezone.now()
    times = {"enqueued_at": now, "due_at": now}
    IngestBatch.objects.bulk_create(
        IngestBatch(
            job=job,
            file=file,
            slice={},
            row_count=1,
            state=state,
            error="damaged" if state == State.PARKED else "",
            finished_at=None if state == State.QUEUED else now,
            **times,
        )
        for file, state in zip(files, states, strict=True)
    )
    return job


@pytest.fixture
def queries_of(admin_client: Client) -> Callable[[str], int]:
    """Count the queries of a page of the admin."""

    def count(path: str) -> int:
        admin_client.get(path)  # what a process asks for once, as content types, is not counted
        with CaptureQueriesContext(connection) as captured:
            assert admin_client.get(path).status_code == 200
        return len(captured)

    return count


PAGES = (
    "/admin/telemetry/ingestjob/{job}/change/",
    "/admin/telemetry/ingestjob/",
    "/admin/telemetry/ingestjob/?state=parked",
    "/admin/telemetry/ingestbatch/?job__id__exact={job}",
    "/admin/telemetry/ingestbatch/?state__exact=parked",
    "/admin/telemetry/ingestfile/?job__id__exact={job}",
)


@pytest.mark.parametrize("page", PAGES)
def test_a_page_runs_as_many_queries_for_a_large_job_as_for_a_small_one(
    queries_of: Callable[[str], int], page: str
) -> None:
    few, many = make_job(*[State.PARKED] * 10), make_job(*[State.PARKED] * MANY)
    small, large = (queries_of(page.format(job=job.pk)) for job in (few, many))
    assert small == large <= 10


def test_the_list_of_jobs_runs_as_many_queries_for_many_jobs_as_for_one(queries_of: Callable[[str], int]) -> None:
    make_job(State.DONE)
    one = queries_of("/admin/telemetry/ingestjob/")
    make_jobs(200)
    assert queries_of("/admin/telemetry/ingestjob/") == one


def test_a_job_links_to_its_batches_by_state_and_to_its_files(admin_client: Client) -> None:
    job, other = make_job(State.DONE, State.DONE, State.PARKED), make_job(State.PARKED)
    page = admin_client.get(f"/admin/telemetry/ingestjob/{job.pk}/change/").content.decode()
    batches, files = "/admin/telemetry/ingestbatch/", "/admin/telemetry/ingestfile/"
    done, parked = re.findall(rf'href="({batches}\?[^"]+)">(\d+) (\w+)<', page)
    assert [done[1:], parked[1:]] == [("2", "done"), ("1", "parked")]
    listed = admin_client.get(parked[0].replace("&amp;", "&")).context["cl"].result_list
    assert [batch.job_id for batch in listed] == [job.pk] != [other.pk]
    (link,) = re.findall(rf'href="({files}\?[^"]+)">3<', page)
    assert len(admin_client.get(link).context["cl"].result_list) == 3


def numbers(client: Client, page: str) -> list[int]:
    return [row.pk for row in client.get(f"/admin/telemetry/{page}").context["cl"].result_list]


def test_jobs_are_found_by_id_file_and_state(admin_client: Client) -> None:
    done, parked = make_job(State.DONE), make_job(State.DONE, State.PARKED)
    assert numbers(admin_client, "ingestjob/") == [parked.pk, done.pk]
    assert numbers(admin_client, f"ingestjob/?q={done.pk}") == [done.pk]
    assert numbers(admin_client, "ingestjob/?q=part-1") == [parked.pk]
    assert numbers(admin_client, "ingestjob/?state=parked") == [parked.pk]
    assert numbers(admin_client, f"ingestjob/?q={2**70}") == []
    assert "1 of 1" in admin_client.get(f"/admin/telemetry/ingestjob/?q={done.pk}").content.decode()


def test_batches_are_found_by_the_id_of_their_job(admin_client: Client) -> None:
    job = make_job(State.DONE, State.PARKED)
    assert len(numbers(admin_client, f"ingestbatch/?q={job.pk}")) >= 2
    assert numbers(admin_client, "ingestbatch/?q=damaged") == []
    assert numbers(admin_client, f"ingestbatch/?q={2**70}") == []


def test_series_are_found_by_the_beginning_of_a_metric_and_paged(
    admin_client: Client, queries_of: Callable[[str], int]
) -> None:
    Series.objects.bulk_create(Series(metric=f"m{number}", labels={}) for number in range(100))
    assert len(numbers(admin_client, "series/")) == admin.PAGE_ROWS
    assert len(numbers(admin_client, "series/?q=m9")) == 11
    with CaptureQueriesContext(connection) as captured:
        admin_client.get("/admin/telemetry/series/")
    assert not [query for query in captured if "DISTINCT" in query["sql"]], "it would read every series for a filter"


def test_a_list_counts_a_limited_number_of_rows(admin_client: Client, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(admin, "ROWS_MAX", 100)
    make_jobs(150)
    assert admin_client.get("/admin/telemetry/ingestjob/").context["cl"].result_count == 100


# States, and the terminal.


@pytest.fixture
def jobs_in_every_state() -> list[IngestJob]:
    """Jobs of every combination of states that two batches may have."""
    return [make_job(*states) for states in product(State.values, repeat=2)]


def test_sql_and_python_agree_on_the_state_of_a_job(jobs_in_every_state: list[IngestJob]) -> None:
    (empty,) = make_jobs(1)
    expected: dict[str, set[int]] = {state: set() for state in JOB_STATES}
    for job in (*jobs_in_every_state, empty):
        progress = job_progress(job.pk)
        assert progress
        expected[progress.state].add(job.pk)
    found = {state: {job.pk for job in jobs_in_state(state, IngestJob.objects.all())} for state in JOB_STATES}
    assert found == expected
    assert count_jobs_by_state() == {state: len(jobs) for state, jobs in expected.items()}


def test_ingest_status_shows_the_newest_jobs_and_counts_by_state() -> None:
    oldest = make_job(State.PARKED)
    newest = make_jobs(2600)[-1]
    make_job(State.QUEUED)
    lines = run("ingest_status").splitlines()
    assert lines[0] == "1 queued, 1 parked, 2,600 done"
    assert lines[-1] == f"older jobs: manage.py ingest_status --before {newest.pk - 18}"
    assert len(lines) < ingest_status.JOBS_SHOWN + 10
    (row,) = [
        line for line in run("ingest_status", "--state", "parked").splitlines() if f" {oldest.pk} " in f" {line} "
    ]
    assert "parked" in row
    assert "older jobs" not in run("ingest_status", "--state", "parked")
    before = run("ingest_status", "--before", str(newest.pk), "--limit", "1")
    assert f"--before {newest.pk - 1}" in before


def test_ingest_status_as_json_has_every_job_a_page_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ingest_status, "PAGE_JOBS", 3)
    assert json.loads(run("ingest_status", "--json")) == []
    jobs = [job.pk for job in make_jobs(7)]
    parked = make_job(State.PARKED).pk
    everything = [job["job_id"] for job in json.loads(run("ingest_status", "--json"))]
    assert everything == [parked, *reversed(jobs)]
    assert [job["job_id"] for job in json.loads(run("ingest_status", "--json", "--state", "parked"))] == [parked]
    assert len(json.loads(run("ingest_status", "--json", "--limit", "4"))) == 4


def test_a_job_with_thousands_of_failures_is_shown_in_a_few_lines() -> None:
    job = make_job(*[State.PARKED] * 2600)
    lines = run("ingest_status", str(job.pk)).splitlines()
    assert len(lines) < ingest_status.PROBLEMS_SHOWN + 10
    assert f"2,580 more parked batches: manage.py ingest_status {job.pk} --json lists all 2,600" in lines
    assert len(json.loads(run("ingest_status", str(job.pk), "--json"))["parked_batches"]) == 2600


@pytest.mark.parametrize("option", [("--state", "done"), ("--limit", "1"), ("--before", "1")])
def test_options_that_select_jobs_cannot_be_combined_with_a_job_id(option: tuple[str, str]) -> None:
    with pytest.raises(CommandError, match=f"{option[0]} cannot be combined with the id of a job") as refused:
        run("ingest_status", "1", *option)
    assert refused.value.returncode == 2


@pytest.mark.parametrize("limit", ["0", "-1", "many"])
def test_a_limit_is_a_number_of_jobs(limit: str) -> None:
    with pytest.raises(CommandError, match="expected a whole number from 1 to 1,000,000, got"):
        run("ingest_status", f"--limit={limit}")


def test_a_cancelled_batch_counts_as_over() -> None:
    job = make_job(State.DONE, State.CANCELLED, State.PARKED, State.QUEUED)
    line = next(line for line in run("ingest_status").splitlines() if re.match(rf"\W*{job.pk}\b", line))
    assert re.search(r"\b3/4\b", line), line


def test_a_job_without_anything_to_retry_needs_no_broker(monkeypatch: pytest.MonkeyPatch) -> None:
    def announce(_: int) -> None:
        raise AssertionError("it was announced")

    monkeypatch.setattr("telemetry.management.commands.retry_ingest.announce", announce)
    job = make_job(State.DONE)
    assert run("retry_ingest", str(job.pk)) == f"job {job.pk}: 0 batches enqueued again\n"
