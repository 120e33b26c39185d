"""Arrow IPC: streams and files, with dictionaries, compressed, and damaged."""

from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import pyarrow as pa
import pytest
from pyarrow import ipc

from telemetry.formats import BadInput, Columns, Parsed, Source
from telemetry.formats.arrow import FORMAT

COLUMNS = Columns("time", ("device",), ("load",))
TIMES = pa.array([datetime(2024, 5, 1, hour, tzinfo=UTC) for hour in range(10)], pa.timestamp("ms", tz="Europe/Berlin"))

Writer = Callable[..., ipc.RecordBatchStreamWriter]
writers = pytest.mark.parametrize("new", [ipc.new_stream, ipc.new_file], ids=["stream", "file"])


def table(**changed: object) -> pa.Table:
    return pa.table(
        {"more": [[1]] * 10, "time": TIMES, "device": pa.array(["a", "b"] * 5), "load": range(10), **changed}
    )


def write(path: Path, new: Writer, *tables: pa.Table, compression: str | None = None) -> Source:
    options = ipc.IpcWriteOptions(compression=compression, emit_dictionary_deltas=True)
    with new(str(path), tables[0].schema, options=options) as writer:
        for part in tables:
            writer.write_table(part, max_chunksize=4)
    return Source.local(path)


def read_all(source: Source, batch_rows: int) -> list[Parsed]:
    slices = FORMAT.cut(source, batch_rows, COLUMNS)
    return [piece for part in slices for piece in FORMAT.read(source, part.place, COLUMNS)]


def rows_of(parsed: list[Parsed]) -> list[dict[str, object]]:
    return list(chain.from_iterable(part.table.to_pylist() for part in parsed))


@writers
@pytest.mark.parametrize("compression", [None, "lz4", "zstd"])
@pytest.mark.parametrize(
    ("batch_rows", "row_counts"),
    [(1, [4, 4, 2]), (4, [4, 4, 2]), (9, [8, 2]), (100, [10])],
)
def test_slices_hold_every_row_once_and_in_order(
    tmp_path: Path, new: Writer, compression: str | None, batch_rows: int, row_counts: list[int]
) -> None:
    source = write(tmp_path / "a.arrow", new, table(), compression=compression)
    FORMAT.check(source, COLUMNS)
    assert [part.row_count for part in FORMAT.cut(source, batch_rows, COLUMNS)] == row_counts
    rows = rows_of(read_all(source, batch_rows))
    assert [row["load"] for row in rows] == list(range(10))
    assert rows[9] == {"time": datetime(2024, 5, 1, 9, tzinfo=UTC), "device": "b", "load": 9.0}


@writers
@pytest.mark.parametrize("batch_rows", [1, 4, 100])
def test_a_dictionary_that_grows_on_the_way_is_that_of_its_batch(tmp_path: Path, new: Writer, batch_rows: int) -> None:
    first = table(device=pa.DictionaryArray.from_arrays(pa.array([0, 1] * 5), ["a", "b"]))
    second = table(device=pa.DictionaryArray.from_arrays(pa.array([2, 1] * 5), ["a", "b", "c"]))
    source = write(tmp_path / "a.arrow", new, first, second)
    assert [row["device"] for row in rows_of(read_all(source, batch_rows))] == ["a", "b"] * 5 + ["c", "b"] * 5


def test_a_row_with_a_fault_is_set_aside_with_its_number_in_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.arrow", ipc.new_stream, table(device=["a"] * 6 + [None, "", "a", "a"]))
    parsed = read_all(source, 3)
    assert [(reject.line, str(reject.fault)) for part in parsed for reject in part.rejects] == [
        (7, "missing label"),
        (8, "missing label"),
    ]
    assert len(rows_of(parsed)) == 8


def test_a_file_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    naive = table(time=TIMES.cast(pa.timestamp("ms")))
    with pytest.raises(BadInput, match="has no zone"):
        FORMAT.check(write(tmp_path / "naive.arrow", ipc.new_stream, naive), COLUMNS)
    with pytest.raises(BadInput, match="no column 'load'"):
        FORMAT.check(write(tmp_path / "less.arrow", ipc.new_file, table().drop(["load"])), COLUMNS)
    (tmp_path / "fake.arrow").write_bytes(b"time,device,load\n" * 10)
    with pytest.raises(BadInput, match=r"fake\.arrow: this is not an Arrow stream or file"):
        FORMAT.check(Source.local(tmp_path / "fake.arrow"), COLUMNS)
    with pytest.raises(BadInput, match="there is no row"):
        list(FORMAT.cut(write(tmp_path / "none.arrow", ipc.new_stream, table().slice(0, 0)), 10, COLUMNS))


@writers
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_file_that_was_cut_off_is_refused_before_anything_is_loaded(
    tmp_path: Path, new: Writer, share: float
) -> None:
    source = write(tmp_path / "a.arrow", new, table(), table(), table())
    content = Path(source.path).read_bytes()
    Path(source.path).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=r"a\.arrow: after row"):
        list(FORMAT.cut(source, 4, COLUMNS))


def test_a_text_that_is_not_utf_8_is_damage_and_not_a_crash(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff"] * 5).cast(pa.binary()).view(pa.string())
    source = write(tmp_path / "a.arrow", ipc.new_stream, table(device=broken))
    with pytest.raises(BadInput, match=r"a\.arrow: rows from 1: .*UTF8"):
        read_all(source, 100)


def test_every_byte_may_be_wrong_without_more_than_an_error(tmp_path: Path) -> None:
    source = write(tmp_path / "a.arrow", ipc.new_stream, table())
    content = Path(source.path).read_bytes()
    refused = 0
    for position in range(0, len(content), 7):
        Path(source.path).write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            FORMAT.check(source, COLUMNS)
            read_all(source, 4)
        except BadInput:
            refused += 1
    assert refused > 0
