"""The schedule of `scripts/bench chaos`: the same for a seed, and uploads whose rows identify themselves."""

import gzip
import json
from itertools import islice

import pyarrow as pa
import pytest

from lab.chaos.payload import Upload
from lab.chaos.plan import LASTS_S, command_uploads, http_uploads, orders, strikes

KINDS = ("a", "b", "c", "d")


def plain(upload: Upload) -> list[str]:
    content = upload.content()
    if upload.compression == "gzip":
        content = gzip.decompress(content)
    elif upload.compression == "zstd":
        content = pa.CompressedInputStream(pa.BufferReader(content), "zstd").read()
    return content.decode().splitlines()


def uploads_of(seed: int, count: int = 60) -> list[Upload]:
    return [*islice(http_uploads(seed, "http-0"), count), *islice(command_uploads(seed, "cli-0"), count)]


def test_a_seed_has_one_schedule_and_another_seed_another() -> None:
    assert strikes(7, KINDS, 60) == strikes(7, KINDS, 60) != strikes(8, KINDS, 60)
    assert uploads_of(7) == uploads_of(7) != uploads_of(8)
    assert list(islice(orders(7), 20)) == list(islice(orders(7), 20)) != list(islice(orders(8), 20))


def test_clients_do_not_send_the_same() -> None:
    first, second = (list(islice(http_uploads(7, client), 20)) for client in ("http-0", "http-1"))
    assert not {upload.name for upload in first} & {upload.name for upload in second}
    assert [upload.rows for upload in first] != [upload.rows for upload in second]


@pytest.mark.parametrize("duration_s", [5.0, 20.0, 600.0])
@pytest.mark.parametrize("seed", range(20))
def test_every_kind_strikes_once_before_any_strikes_again(seed: int, duration_s: float) -> None:
    planned = strikes(seed, KINDS, duration_s)
    times = [strike.at_s for strike in planned]
    assert times == sorted(times)
    assert times[0] > 0
    assert times[-1] < duration_s
    for begin in range(0, len(planned) - len(KINDS) + 1, len(KINDS)):
        assert {strike.kind for strike in planned[begin : begin + len(KINDS)]} == set(KINDS)
    assert all(LASTS_S[0] <= strike.lasts_s <= LASTS_S[1] and 0 <= strike.chance < 1 for strike in planned)
    assert len(planned) >= min(len(KINDS), 3)


def test_uploads_are_of_every_kind() -> None:
    uploads = uploads_of(1)
    assert {(upload.format, upload.compression) for upload in uploads} == {
        (format_, compression) for format_ in ("csv", "ndjson") for compression in ("", "gzip", "zstd")
    }
    assert {upload.into_spool for upload in uploads} == {True, False}
    for what in ("bad", "breaks_off_s"):
        assert {bool(getattr(upload, what)) for upload in uploads} == {True, False}


@pytest.mark.parametrize("seed", range(5))
def test_a_row_says_which_it_is_and_a_bad_one_stands_at_its_line(seed: int) -> None:
    for upload in uploads_of(seed, 20):
        lines = plain(upload)
        header = 1 if upload.format == "csv" else 0
        assert len(lines) == header + upload.rows
        assert {line: lines[line - 1] for line in upload.bad_lines} == upload.bad_lines
        assert upload.good | {line - 1 - header for line in upload.bad_lines} == set(range(upload.rows))
        for row in sorted(upload.good)[:: max(1, upload.rows // 50)]:
            assert value_of(lines[header + row], upload) == row


def value_of(line: str, upload: Upload) -> float:
    if upload.format == "csv":
        _, device, value = line.split(",")
    else:
        _, device, value = json.loads(line).values()
    assert device == upload.name
    return float(value)
