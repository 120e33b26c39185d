"""Errors of the storage: a batch waits for a store that is unavailable, and is parked for permanent errors."""

import errno
import logging
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from celery.exceptions import Retry
from django.core.management import CommandError
from django.test import Client
from moto.server import ThreadedMotoServer
from pyarrow import fs
from pytest_django.fixtures import Settings

from api.tokens import create_token
from telemetry import rejects, spool
from telemetry.formats import BadInput, MissingFileError, Source, Stamp, StorageUnavailableError, by_name
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job
from telemetry.models import IngestBatch, IngestJob, Reading
from tests.integration.conftest import COLUMNS, due_again, run
from tests.plugin import free_ports
from worker.tasks import is_transient, load_batch

pytestmark = pytest.mark.django_db(transaction=True)

ROWS = "time,device,load,heat\n2024-05-01T00:00Z,a,1,2\n2024-05-01T01:00Z,a,3,4\n"
BAD_ROW = "soon,a,1,2\n"
OPTIONS = ("--time", "time", "--labels", "device", "--values", "load", "heat")
ADDRESS = "/api/ingest/?time=time&labels=device&values=load&values=heat"


@pytest.fixture(autouse=True)
def retry(monkeypatch: pytest.MonkeyPatch) -> None:
    """Raise an exception instead of sending a retry."""

    def note(**how: Any) -> Retry:
        return Retry(str(how.get("kwargs")), when=how["countdown"])

    monkeypatch.setattr(load_batch, "retry", note)


def enqueue(path: Path, text: str = ROWS, *, into_spool: bool = False) -> IngestBatch:
    path.write_text(text)
    return create_job(Inputs([open_input(str(path), into_spool=into_spool)]), COLUMNS, batch_rows=100).batches.get()


def assert_waits(batch: IngestBatch) -> None:
    due_again(batch)
    with pytest.raises(Retry) as retried:
        load_batch(batch.pk)
    assert is_transient(retried.value.__cause__)  # type: ignore[arg-type]
    batch.refresh_from_db()
    assert batch.state == "queued"


def assert_loads(batch: IngestBatch) -> None:
    due_again(batch)
    load_batch(batch.pk)
    batch.refresh_from_db()
    assert (batch.state, batch.error) == ("done", "")
    assert Reading.objects.count() == 4


class Store:
    """An object store that can be stopped and started without losing its content."""

    def __init__(self, port: int) -> None:
        self.port = port
        options = f"endpoint_override=127.0.0.1:{port}&scheme=http&region=us-east-1&allow_bucket_creation=true"
        self.url = f"s3://key:secret@bucket/poolhouse?{options}"
        self.start()

    def start(self) -> None:
        self._server = ThreadedMotoServer(ip_address="127.0.0.1", port=self.port, verbose=False)
        self._server.start()

    def stop(self) -> None:
        self._server.stop()


@pytest.fixture
def store(settings: Settings) -> Iterator[Store]:
    """An object store with the spool in it."""
    logging.getLogger("werkzeug").setLevel(logging.WARNING)
    (port,) = free_ports(1)
    store = Store(port)
    base, _ = fs.FileSystem.from_uri(store.url)
    base.create_dir("bucket")
    settings.INGEST_SPOOL = store.url
    yield store
    store.stop()


@pytest.fixture
def folder(tmp_path: Path, settings: Settings) -> Path:
    """A folder with the spool in it."""
    settings.INGEST_SPOOL = str(tmp_path / "volume" / "spool")
    spool.prepare()
    return tmp_path / "volume" / "spool"


@pytest.mark.usefixtures("sent")
def test_a_batch_waits_for_an_object_store_that_refuses_connections(tmp_path: Path, store: Store) -> None:
    batch = enqueue(tmp_path / "a.csv", into_spool=True)
    store.stop()
    assert_waits(batch)
    store.start()
    assert_loads(batch)


@pytest.mark.usefixtures("sent")
def test_a_batch_waits_if_the_store_becomes_unavailable_while_it_is_loaded(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    batch = enqueue(tmp_path / "a.csv", ROWS + BAD_ROW, into_spool=True)
    csv, write = by_name("csv"), rejects.Writer.write
    whole_read = type(csv).read

    def read_then_stop(self: Any, source: Source, *arguments: Any) -> Any:
        store.stop()
        return whole_read(self, source, *arguments)

    def stop_then_write(*arguments: Any) -> None:
        store.stop()
        write(*arguments)

    with monkeypatch.context() as patched:
        patched.setattr(type(csv), "read", read_then_stop)
        assert_waits(batch)
    store.start()
    with monkeypatch.context() as patched:
        patched.setattr(rejects.Writer, "write", stop_then_write)
        assert_waits(batch)
    store.start()
    assert_loads(batch)


@pytest.mark.usefixtures("sent")
def test_an_object_missing_from_an_available_store_parks_its_batch(tmp_path: Path, store: Store) -> None:
    batch = enqueue(tmp_path / "a.csv", into_spool=True)
    spool.discard(batch.file.location)
    load_batch(batch.pk)
    batch.refresh_from_db()
    assert batch.state == "parked"
    assert "no such file" in batch.error


@pytest.mark.usefixtures("sent", "store")
def test_an_unavailable_store_is_not_reported_as_bad_input(
    tmp_path: Path, store: Store, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "key")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
    url = store.url.replace("key:secret@", "").replace("/poolhouse", "/{}/a.csv")
    store.stop()
    with pytest.raises(CommandError, match=r"Could not connect to server.*; try again later") as unavailable:
        run("enqueue_ingest", url.format("mine"), *OPTIONS)
    assert unavailable.value.returncode == 1
    (tmp_path / "a.csv").write_text(ROWS)
    with pytest.raises(CommandError, match=r"the spool: .*Could not connect to server.*; try again later") as refused:
        run("enqueue_ingest", str(tmp_path / "a.csv"), *OPTIONS, "--spool")
    assert refused.value.returncode == 1
    client = Client(headers={"Authorization": f"Bearer {create_token('tests')}"})
    response = client.post(ADDRESS, ROWS.encode(), content_type="text/csv")
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    assert response.json()["detail"] == "the server's file storage is not available; try again in 30 s"
    assert IngestJob.objects.count() == 0
    store.start()
    assert client.post(ADDRESS, ROWS.encode(), content_type="text/csv").status_code == 202


@pytest.mark.usefixtures("sent")
def test_a_batch_waits_for_a_spool_that_is_not_mounted(tmp_path: Path, folder: Path) -> None:
    batch = enqueue(tmp_path / "a.csv", into_spool=True)
    aside = folder.parent.with_name("aside")
    folder.parent.rename(aside)
    assert_waits(batch)
    assert not folder.exists(), "a spool that is missing is not made anew by reading from it"
    folder.mkdir(parents=True)  # the empty mount point
    assert_waits(batch)
    shutil.rmtree(folder.parent)
    aside.rename(folder.parent)
    assert_loads(batch)


@pytest.mark.usefixtures("sent")
@pytest.mark.parametrize("has_mount_point", [True, False])
def test_nothing_is_written_to_a_spool_that_is_not_mounted(tmp_path: Path, folder: Path, has_mount_point: bool) -> None:
    batch = enqueue(tmp_path / "a.csv", ROWS + BAD_ROW, into_spool=True)
    outside = enqueue(tmp_path / "b.csv", ROWS + BAD_ROW)
    aside = folder.rename(tmp_path / "aside")
    if has_mount_point:
        folder.mkdir()
    client = Client(headers={"Authorization": f"Bearer {create_token('tests')}"})
    response = client.post(ADDRESS, ROWS.encode(), content_type="text/csv")
    assert (response.status_code, response["Retry-After"]) == (503, "30")
    with pytest.raises(CommandError, match=r"has no file \.poolhouse-spool; check that its volume is mounted"):
        run("enqueue_ingest", str(tmp_path / "a.csv"), *OPTIONS, "--spool")
    assert_waits(outside)  # its rejects cannot be written
    assert_waits(batch)
    assert ".poolhouse-spool" in batch.error
    run("migrate", "--verbosity", "0")
    assert list(folder.glob("**/*")) == [], "what is written here disappears when the volume is mounted"
    if has_mount_point:
        folder.rmdir()
    aside.rename(folder)
    assert_loads(batch)


@pytest.mark.usefixtures("sent")
def test_migrate_prepares_a_spool_that_is_new(tmp_path: Path, settings: Settings) -> None:
    settings.INGEST_SPOOL = str(tmp_path / "var" / "spool")
    run("migrate", "--verbosity", "0")
    assert spool.exists(enqueue(tmp_path / "a.csv", into_spool=True).file.location)


@pytest.mark.usefixtures("sent")
def test_migrate_prepares_a_spool_that_was_used_and_has_no_marker(tmp_path: Path, folder: Path) -> None:
    batch = enqueue(tmp_path / "a.csv", into_spool=True)
    load_batch(batch.pk)
    spool.discard(batch.file.location)
    (folder / ".poolhouse-spool").unlink()
    run("migrate", "--verbosity", "0")
    assert spool.exists(enqueue(tmp_path / "a.csv", into_spool=True).file.location)


@pytest.mark.usefixtures("sent")
def test_prepare_spool_prepares_a_folder_that_migrate_refuses(tmp_path: Path, folder: Path) -> None:
    enqueue(tmp_path / "a.csv", into_spool=True)
    shutil.rmtree(folder)
    run("migrate", "--verbosity", "0")
    assert not spool.is_mounted()
    run("prepare_spool")
    enqueue(tmp_path / "a.csv", into_spool=True)


@pytest.mark.usefixtures("sent")
def test_a_file_missing_from_a_mounted_spool_parks_its_batch(tmp_path: Path, folder: Path) -> None:
    batch = enqueue(tmp_path / "a.csv", into_spool=True)
    spool.discard(batch.file.location)
    load_batch(batch.pk)
    batch.refresh_from_db()
    assert batch.state == "parked"


@pytest.mark.usefixtures("sent")
def test_a_batch_waits_for_the_volume_that_its_file_is_on(tmp_path: Path) -> None:
    volume = tmp_path / "volume"
    volume.mkdir()
    batch = enqueue(volume / "a.csv")
    aside = volume.rename(tmp_path / "aside")
    assert_waits(batch)
    volume.mkdir()
    assert_waits(batch)
    volume.rmdir()
    aside.rename(volume)
    assert_loads(batch)


@pytest.mark.usefixtures("sent")
def test_a_batch_waits_until_its_rejects_can_be_written(tmp_path: Path, folder: Path) -> None:
    batch = enqueue(tmp_path / "a.csv", ROWS + BAD_ROW, into_spool=True)
    (folder / rejects.FOLDER).write_text("in the way")
    assert_waits(batch)
    assert Reading.objects.count() == 0
    (folder / rejects.FOLDER).unlink()
    assert_loads(batch)
    assert [reject["line"] for reject in rejects.read(batch.job_id)] == [4]


class Failing(fs.FileSystemHandler):  # type: ignore[misc]
    """A filesystem whose methods all raise the same error."""

    def __init__(self, error: OSError) -> None:
        self.error = error

    def fail(self, *_: object, **__: object) -> Any:
        raise self.error

    def get_type_name(self) -> str:
        return "failing"

    copy_file = create_dir = delete_dir = delete_dir_contents = delete_file = delete_root_dir_contents = fail
    equals = get_file_info = get_file_info_selector = move = normalize_path = open_append_stream = fail
    open_input_file = open_input_stream = open_output_stream = fail


def failing(error: OSError, *, is_spooled: bool = False) -> Source:
    return Source(fs.PyFileSystem(Failing(error)), "a.csv", "a.csv", is_spooled=is_spooled)


def outcome(source: Source) -> tuple[type[Exception], ...]:
    """Return the errors of each operation on a file."""
    seen = []
    for use in (source.open, source.stamp, lambda: source.require_unchanged(Stamp(1, 1))):
        with pytest.raises((BadInput, OSError), match=r"a\.csv: ") as raised:
            use()
        seen.append(type(raised.value))
    return tuple(seen)


@pytest.mark.parametrize(
    "number",
    [
        *(errno.ESTALE, errno.EIO, errno.ECONNREFUSED, errno.ETIMEDOUT, errno.EHOSTDOWN, errno.ENOTCONN, errno.ENOSPC),
        *(errno.EMFILE, errno.ENFILE, errno.EAGAIN, errno.EINTR, errno.ENOMEM, errno.EREMOTEIO, errno.EDQUOT),
    ],
    ids=errno.errorcode.get,
)
def test_a_temporary_error_is_reported_as_an_error_of_the_storage(number: int) -> None:
    assert outcome(failing(OSError(number, "?"))) == (StorageUnavailableError,) * 3
    with pytest.raises(StorageUnavailableError), failing(OSError()).naming_damage("row 1"):
        raise OSError(number, "while it is read")
    assert is_transient(StorageUnavailableError("a.csv", "?", number))


@pytest.mark.parametrize(
    "number",
    [errno.EACCES, errno.EPERM, errno.EISDIR, errno.ENOTDIR, errno.ENAMETOOLONG, errno.ELOOP],
    ids=errno.errorcode.get,
)
def test_a_permanent_error_is_reported_as_bad_input_unless_it_is_of_the_spool(number: int) -> None:
    assert outcome(failing(OSError(number, "?"))) == (BadInput,) * 3
    assert outcome(failing(OSError(number, "?"), is_spooled=True)) == (StorageUnavailableError,) * 3


@pytest.mark.parametrize(
    ("text", "kind"),
    [
        ("AWS Error NETWORK_CONNECTION during HeadObject operation: curlCode: 28, Timeout", StorageUnavailableError),
        ("AWS Error SLOW_DOWN during GetObject operation: Please reduce your request rate", StorageUnavailableError),
        ("AWS Error UNKNOWN (HTTP status 503) during GetObject operation", StorageUnavailableError),
        ("AWS Error ACCESS_DENIED during HeadObject operation: No response body", BadInput),
        ("AWS Error NO_SUCH_BUCKET during GetObject operation", BadInput),
        ("AWS Error UNKNOWN (HTTP status 403) during HeadObject operation", BadInput),
        ("google::cloud::Status(UNAVAILABLE: try later)", StorageUnavailableError),
        ("google::cloud::Status(PERMISSION_DENIED: no)", BadInput),
    ],
)
def test_errors_of_object_stores_are_classified_by_their_texts(text: str, kind: type[Exception]) -> None:
    assert outcome(failing(OSError(text))) == (kind,) * 3


def test_damage_is_distinguished_from_errors_of_the_store_or_its_mount(tmp_path: Path) -> None:
    for source in (failing(OSError()), Source.local(tmp_path / "a"), Source(spool.filesystem(), "a", "a")):
        with pytest.raises(BadInput, match="row 1: Corrupt snappy"), source.naming_damage("row 1"):
            raise OSError("Corrupt snappy compressed data.")


def test_a_path_that_cannot_work_is_bad_input(tmp_path: Path) -> None:
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    (tmp_path / "file").write_text("x")
    for path in ("loop", "file/a.csv", "x" * 300, "missing/a.csv"):
        with pytest.raises(BadInput):
            Source.local(tmp_path / path).open()
        with pytest.raises(BadInput):
            Source.local(tmp_path / path).stamp()
    with pytest.raises(BadInput):
        Source.local(tmp_path).open()
    with pytest.raises(MissingFileError):
        Source.local(tmp_path / "missing/a.csv").stamp()
