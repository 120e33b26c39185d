"""Arrow IPC: streams and files, with dictionaries, compressed, and damaged."""

import json
import struct
from collections.abc import Callable
from datetime import UTC, datetime
from itertools import chain
from pathlib import Path

import numpy as np
import pyarrow as pa
import pytest
from pyarrow import ipc
from pytest_django.fixtures import Settings

from telemetry.formats import BadInput, Columns, Parsed, Source
from telemetry.formats.arrow import FORMAT
from telemetry.formats.messages import KINDS, messages

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
def test_slices_have_every_row_once_and_in_order(
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
def test_a_growing_dictionary_is_read_as_it_was_for_each_batch(tmp_path: Path, new: Writer, batch_rows: int) -> None:
    first = table(device=pa.DictionaryArray.from_arrays(pa.array([0, 1] * 5), ["a", "b"]))
    second = table(device=pa.DictionaryArray.from_arrays(pa.array([2, 1] * 5), ["a", "b", "c"]))
    source = write(tmp_path / "a.arrow", new, first, second)
    assert [row["device"] for row in rows_of(read_all(source, batch_rows))] == ["a", "b"] * 5 + ["c", "b"] * 5


@writers
@pytest.mark.parametrize("batch_rows", [1, 8, 9, 100])
def test_several_dictionaries_may_grow_and_be_replaced_in_a_file(tmp_path: Path, new: Writer, batch_rows: int) -> None:
    def part(devices: list[str], rooms: list[str]) -> pa.Table:
        indices = pa.array([0, len(devices) - 1] * 5)
        return table(
            device=pa.DictionaryArray.from_arrays(indices, devices),
            room=pa.DictionaryArray.from_arrays(pa.array([len(rooms) - 1] * 10), rooms),
        )

    parts = [part(["a", "b"], ["r"]), part(["a", "b", "c"], ["r"]), part(["a", "b", "c"], ["r", "s"])]
    if new is ipc.new_stream:  # a file may not replace a dictionary
        parts += [part(["x", "y"], ["r", "s", "t"]), part(["x", "y"], ["u"])]
    source = write(tmp_path / "a.arrow", new, *parts)
    columns = Columns("time", ("device", "room"), ("load",))
    slices = list(FORMAT.cut(source, batch_rows, columns))
    rows = rows_of([piece for cut in slices for piece in FORMAT.read(source, cut.place, columns)])
    for name in ("device", "room"):
        assert [row[name] for row in rows] == [text for part in parts for text in part[name].to_pylist()]


def test_the_ledger_entry_of_a_slice_does_not_grow_with_the_dictionaries_before_it(tmp_path: Path) -> None:
    parts = [
        table(device=pa.DictionaryArray.from_arrays(pa.array([n] * 10), [f"{m}" for m in range(n + 1)]))
        for n in range(200)
    ]
    source = write(tmp_path / "a.arrow", ipc.new_stream, *parts)
    slices = list(FORMAT.cut(source, 10, COLUMNS))
    assert len(slices) == 200
    assert max(len(json.dumps(part.place)) for part in slices) < 200
    assert [row["device"] for row in rows_of(read_all(source, 10))] == [f"{n}" for n in range(200) for _ in range(10)]


@writers
def test_a_slice_of_an_older_version_that_lists_its_messages_is_read(tmp_path: Path, new: Writer) -> None:
    """Batches may wait in the ledger during an upgrade."""
    parts = [table(device=pa.DictionaryArray.from_arrays(pa.array([0, 1] * 5), ["a", "b", "c"][:n])) for n in (2, 3)]
    source = write(tmp_path / "a.arrow", new, *parts)
    with source.open() as file:
        found = list(messages(file, 8 if new is ipc.new_file else 0, file.size()))
    ranges = {kind: [(m.begin, m.end - m.begin) for m in found if m.kind == kind] for kind in KINDS.values()}
    place = {
        "schema": ranges["schema"][0],
        "dictionaries": ranges["dictionary"],
        "batches": ranges["record batch"][3:],
        "first_row": 10,
        "rows": 10,
        "skip": 0,
    }
    parsed = list(FORMAT.read(source, json.loads(json.dumps(place)), COLUMNS))
    assert [row["device"] for row in rows_of(parsed)] == ["a", "b"] * 5


def test_only_columns_that_are_read_count_towards_the_memory_limit(tmp_path: Path, settings: Settings) -> None:
    settings.INGEST_WORKER_MEMORY_BYTES = 1 << 20
    count = 10_000
    columns = {"time": TIMES.take(pa.array([0] * count)), "device": ["a"] * count, "load": range(count)}
    other = {f"v{n}": np.zeros(count) for n in range(20)}
    nested = {
        "list": [[1.0, None]] * count,
        "view": pa.array(["a long text, not kept inline"] * count, pa.string_view()),
    }
    more = {"union": pa.UnionArray.from_sparse(pa.array([0] * count, pa.int8()), [pa.array(range(count))]), **other}
    wide = pa.table({**nested, **more, **columns})
    with ipc.new_stream(str(tmp_path / "a.arrow"), wide.schema, options=ipc.IpcWriteOptions(compression="zstd")) as new:
        new.write_table(wide)
    source = Source.local(tmp_path / "a.arrow")
    assert [row["load"] for row in rows_of(read_all(source, 100_000))] == list(range(count))
    with pytest.raises(BadInput, match=r"a record batch of 10,000 rows takes .* bytes of memory, the limit is 524,288"):
        list(FORMAT.cut(source, 100_000, Columns("time", ("device",), ("load", *other))))


def test_all_dictionaries_together_have_a_memory_limit(tmp_path: Path, settings: Settings) -> None:
    settings.INGEST_WORKER_MEMORY_BYTES = 1 << 20
    labels = pa.array([f"{n:0100}" for n in range(1000)])
    source = write(tmp_path / "a.arrow", ipc.new_stream, table(device=pa.DictionaryArray.from_arrays([0] * 10, labels)))
    with pytest.raises(BadInput, match=r"the dictionaries take .* bytes of memory, the limit is 65,536 \(1/16 of"):
        list(FORMAT.cut(source, 10, COLUMNS))


def test_a_batch_that_says_it_has_more_rows_than_bytes_is_refused(tmp_path: Path) -> None:
    source = write(tmp_path / "a.arrow", ipc.new_stream, table())
    content = Path(source.path).read_bytes()
    with source.open() as file:
        batch = next(message for message in messages(file, 0, file.size()) if message.kind == "record batch")
    at = content.index(struct.pack("<q", 4), batch.begin)
    Path(source.path).write_bytes(content[:at] + struct.pack("<q", 1 << 40) + content[at + 8 :])
    with pytest.raises(BadInput, match="a record batch of 1,099,511,627,776 rows has fewer bytes than rows"):
        list(FORMAT.cut(source, 10, COLUMNS))


def table_bytes(**fields: bytes) -> bytes:
    """Return a flatbuffers table with its vtable before it; fields by number, f0 to f9, each of up to 4 bytes."""
    places = {int(name[1:]): 4 + 4 * n for n, name in enumerate(fields)}
    count = max(places) + 1
    vtable = struct.pack(
        f"<{2 + count}H", 4 + 2 * count, 4 + 4 * len(fields), *(places.get(n, 0) for n in range(count))
    )
    vtable = b"\0" * (-len(vtable) % 4) + vtable
    return (
        vtable
        + struct.pack("<i", len(vtable) - (-(4 + 2 * count) % 4))
        + b"".join(v.ljust(4, b"\0") for v in fields.values())
    )


def shared_schema(levels: int) -> bytes:
    """Return a schema of a few bytes per level, in which each field has the next one twice as its child."""
    # Each part ends where the next begins; an offset counts from where it stands.
    leaf = table_bytes(f2=b"\x0d", f5=struct.pack("<I", 4)) + struct.pack("<I", 0)
    vtable_bytes = len(leaf) - 4 - 12
    data = leaf
    for _ in range(levels):
        children = struct.pack("<III", 2, 8 + vtable_bytes, 4 + vtable_bytes)
        data = table_bytes(f2=b"\x0d", f5=struct.pack("<I", 4)) + children + data
    schema = table_bytes(f1=struct.pack("<I", 4))
    fields = struct.pack("<II", 1, 4 + vtable_bytes)
    message = table_bytes(f0=b"\x04", f1=b"\x01", f2=struct.pack("<I", 4 + len(schema) - 8))
    data = struct.pack("<I", 4 + len(message) - 16) + message + schema + fields + data
    data += b"\0" * (-len(data) % 8)
    return struct.pack("<Ii", 0xFFFFFFFF, len(data)) + data


@pytest.mark.parametrize(
    ("levels", "problem"),
    [(30, "the schema takes more than 67,108,864 bytes of memory"), (70, "nested more than 64 levels deep")],
)
def test_a_schema_with_repeated_fields_is_refused_before_arrow_reads_it(
    tmp_path: Path, levels: int, problem: str
) -> None:
    path = tmp_path / "a.arrow"
    path.write_bytes(shared_schema(levels))
    assert path.stat().st_size < 5000
    with pytest.raises(BadInput, match=problem):
        FORMAT.check(Source.local(path), COLUMNS)
    path.write_bytes(shared_schema(3))  # with few fields, Arrow sees it, and misses what this test leaves out
    with pytest.raises(BadInput, match=r"null field Field\.type"):
        FORMAT.check(Source.local(path), COLUMNS)


def test_a_bad_row_is_rejected_with_its_number_in_the_file(tmp_path: Path) -> None:
    source = write(tmp_path / "a.arrow", ipc.new_stream, table(device=["a"] * 6 + [None, "", "a", "a"]))
    parsed = read_all(source, 3)
    assert [(reject.line, str(reject.fault)) for part in parsed for reject in part.rejects] == [
        (7, "missing label"),
        (8, "missing label"),
    ]
    assert len(rows_of(parsed)) == 8


def test_a_file_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    naive = table(time=TIMES.cast(pa.timestamp("ms")))
    with pytest.raises(BadInput, match="expected timestamps with a time zone"):
        FORMAT.check(write(tmp_path / "naive.arrow", ipc.new_stream, naive), COLUMNS)
    with pytest.raises(BadInput, match="missing column 'load'"):
        FORMAT.check(write(tmp_path / "less.arrow", ipc.new_file, table().drop(["load"])), COLUMNS)
    (tmp_path / "fake.arrow").write_bytes(b"time,device,load\n" * 10)
    with pytest.raises(BadInput, match=r"fake\.arrow: not a valid Arrow stream or file"):
        FORMAT.check(Source.local(tmp_path / "fake.arrow"), COLUMNS)
    with pytest.raises(BadInput, match="the file has no rows"):
        list(FORMAT.cut(write(tmp_path / "none.arrow", ipc.new_stream, table().slice(0, 0)), 10, COLUMNS))


@writers
@pytest.mark.parametrize("share", [0.3, 0.6, 0.8])
def test_a_truncated_file_is_refused_before_anything_is_loaded(tmp_path: Path, new: Writer, share: float) -> None:
    source = write(tmp_path / "a.arrow", new, table(), table(), table())
    content = Path(source.path).read_bytes()
    Path(source.path).write_bytes(content[: int(len(content) * share)])
    with pytest.raises(BadInput, match=r"a\.arrow: cannot read the data after row"):
        list(FORMAT.cut(source, 4, COLUMNS))


def test_invalid_utf_8_is_reported_as_damage_and_does_not_crash(tmp_path: Path) -> None:
    broken = pa.array([b"a", b"\xff"] * 5).cast(pa.binary()).view(pa.string())
    source = write(tmp_path / "a.arrow", ipc.new_stream, table(device=broken))
    with pytest.raises(BadInput, match=r"a\.arrow: cannot read the rows from 1 on: .*UTF8"):
        read_all(source, 100)


def test_any_wrong_byte_causes_at_most_an_error(tmp_path: Path) -> None:
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
