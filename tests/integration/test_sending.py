"""Sending the messages of batches in portions, and finding lost ones."""

from collections.abc import Callable, Iterator

import pytest
from django.conf import settings as django_settings
from django.utils.module_loading import import_string

from telemetry import ledger, queue
from telemetry.models import IngestBatch, IngestJob
from telemetry.queue import INGEST_QUEUE, Waiting, send_batches, send_job, waiting
from tests.integration.conftest import NOTHING_WAITS, long_ago
from worker import tasks
from worker.tasks import resend_unfinished, send_batches_of_job

pytestmark = [pytest.mark.django_db(transaction=True), pytest.mark.usefixtures("servers")]

MakeBatches = Callable[..., list[IngestBatch]]
LINES = tuple(f"2024-05-01T00:{minute:02d}Z,a,1,2" for minute in range(20))


@pytest.fixture(autouse=True)
def empty_queue() -> Iterator[None]:
    """Empty the queue before and after a test."""
    app = import_string(django_settings.CELERY_APP)
    with app.connection_for_write() as connection:
        connection.default_channel.client.delete(INGEST_QUEUE)
        yield
        connection.default_channel.client.delete(INGEST_QUEUE)


@pytest.fixture
def job(batches_of: MakeBatches, monkeypatch: pytest.MonkeyPatch) -> IngestJob:
    """A job of twenty batches, of which six are sent at once, and the next when two are left."""
    monkeypatch.setattr(tasks, "SENT_AT_ONCE", 6)
    monkeypatch.setattr(tasks, "SENT_AHEAD", 2)
    return batches_of(*LINES, batch_rows=1)[0].job


def take_all(messages: int) -> list[tuple[str, int]]:
    """Take messages from the queue as a worker does, until it is empty."""
    app = import_string(django_settings.CELERY_APP)
    taken: list[tuple[str, int]] = []
    with app.connection_for_read() as connection, connection.SimpleQueue(INGEST_QUEUE) as simple:
        for _ in range(messages):
            message = simple.get(timeout=30)
            message.ack()
            taken.append((message.headers["task"], message.decode()[0][0]))
    return taken


def test_a_job_is_announced_by_one_message_and_sent_some_at_a_time(job: IngestJob) -> None:
    send_job(job.pk)
    assert waiting() == Waiting(set(), {job.pk}, is_all=True)
    assert take_all(1) == [(queue.SEND_JOB, job.pk)]
    loaded: list[int] = []
    send_batches_of_job(job.pk)
    while waiting().batch_ids:
        assert len(waiting().batch_ids) <= 6 + 2, "whatever the size of the job"
        ((task, argument),) = take_all(1)
        if task == queue.SEND_JOB:
            send_batches_of_job(argument)
        else:
            loaded.append(argument)
            IngestBatch.objects.filter(pk=argument).update(state="done")
    assert sorted(loaded) == list(job.batches.order_by("pk").values_list("pk", flat=True)), "each of them once"
    job.refresh_from_db()
    assert job.unsent_since is None


def test_batches_that_are_loaded_at_the_same_time_are_far_apart(job: IngestJob, settings) -> None:  # type: ignore[no-untyped-def]
    settings.WORKER_PROCESSES = 2
    ids = list(job.batches.order_by("pk").values_list("pk", flat=True))
    assert ledger.next_unsent(job.pk, 6) == ([ids[0], ids[10], ids[1], ids[11], ids[2], ids[12]], True)
    assert ledger.next_unsent(job.pk, 6) == ([], False), "so many are under way"
    assert ledger.next_unsent(job.pk, 12) == ([ids[3], ids[13], ids[4], ids[14], ids[5], ids[15]], True)
    assert ledger.next_unsent(job.pk, 100)[1] is False
    assert ledger.next_unsent(job.pk, 100) == ([], False)


def test_a_job_whose_announcement_was_lost_is_announced_again(job: IngestJob) -> None:
    assert ledger.lost_jobs(NOTHING_WAITS) == [], "it may be on its way"
    overdue(job)
    assert ledger.lost_jobs(Waiting(set(), {job.pk}, is_all=True)) == [], "it waits"
    resend_unfinished()
    assert waiting().job_ids == {job.pk}
    resend_unfinished()
    assert take_all(1) == [(queue.SEND_JOB, job.pk)], "once"
    assert ledger.lost_jobs(NOTHING_WAITS) == [], "and not again before it is overdue again"


def test_repeated_announcements_of_a_job_send_no_more_batches(job: IngestJob) -> None:
    for _ in range(3):
        send_batches_of_job(job.pk)
    assert len(waiting().batch_ids) == 6
    IngestBatch.objects.filter(pk__in=list(waiting().batch_ids)[:4]).update(state="done")
    send_batches_of_job(job.pk)
    assert len(waiting().batch_ids) == 6 + 4, "as many as are over"


def overdue(job: IngestJob) -> None:
    IngestJob.objects.filter(pk=job.pk).update(unsent_since="2024-01-01T00:00Z")


def test_batches_that_were_not_sent_yet_are_not_lost(job: IngestJob) -> None:
    IngestBatch.objects.update(due_at="2024-01-01T00:00Z")
    assert ledger.lost_batches(NOTHING_WAITS) == []


def test_messages_lost_from_a_long_queue_are_found_by_its_head(job: IngestJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(queue, "WAITING_MAX", 2)
    lost, *others = job.batches.order_by("pk")
    long_ago(IngestBatch.objects.all())
    IngestBatch.objects.exclude(pk=lost.pk).update(sent_at="2024-01-02T00:00Z")
    send_batches(batch.pk for batch in others)
    seen = waiting()
    assert seen == Waiting({others[0].pk, others[1].pk}, set(), is_all=False)
    assert ledger.lost_batches(seen) == [lost.pk], "it was sent before all that waits; of the others nobody can tell"


def test_a_queue_with_other_messages_at_its_head_resends_nothing(job: IngestJob) -> None:
    long_ago(IngestBatch.objects.all())
    overdue(job)
    unknown = Waiting(set(), set(), is_all=False)
    assert (ledger.lost_batches(unknown), ledger.lost_jobs(unknown)) == ([], [])


def test_the_number_of_resent_batches_is_limited(job: IngestJob, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(ledger, "RESENT_MAX", 15)
    long_ago(IngestBatch.objects.all())
    assert len(ledger.lost_batches(NOTHING_WAITS)) == 15
    assert len(ledger.lost_batches(NOTHING_WAITS)) == 5, "the others when they are looked at again"
