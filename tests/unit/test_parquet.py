"""Parquet: cutting, parsing, and refusing files."""

import json
from datetime import UTC, datetime
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
import pytest

from telemetry.estimate import sample_file
from telemetry.formats import BadInput, Columns, Source, TimeFormat
from telemetry.formats.parquet import FORMAT

COLUMNS = Columns(time="time", labels=("device",), values=("load",))
NOON = datetime(2024, 5, 1, 12, tzinfo=UTC)


def write(
    path: Path, *, times: pa.Array | None = None, devices: list[str | None], loads: pa.Array | None = None
) -> Path:
    count = len(devices)
    table = pa.table(
        {
            "device": devices,
            "load": loads if loads is not None else pa.array(range(count), pa.int32()),
            "time": times if times is not None else pa.array([NOON] * count, pa.timestamp("ms", tz="Europe/Berlin")),
        }
    )
    pq.write_table(table, path, row_group_size=3)
    return path


def test_row_groups_are_combined_up_to_the_size_of_a_batch(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", devices=["a"] * 10)
    slices = list(FORMAT.cut(Source.local(path), 7, COLUMNS))
    assert [(part.row_count, part.place["groups"], part.place["first_row"]) for part in slices] == [
        (6, (0, 2), 0),
        (4, (2, 4), 6),
    ]


def test_a_slice_is_read_with_the_types_of_a_parsed_table(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", devices=["a", "b"])
    (part,) = FORMAT.cut(Source.local(path), 100, COLUMNS)
    (parsed,) = FORMAT.read(Source.local(path), part.place, COLUMNS)
    assert parsed.table.column_names == ["time", "device", "load"]
    assert parsed.table.to_pylist()[1] == {"time": NOON, "device": "b", "load": 1.0}
    assert parsed.rejects == []


def test_a_row_without_time_or_label_is_rejected_with_its_number_in_the_file(tmp_path: Path) -> None:
    times = pa.array([NOON, None, NOON, NOON, NOON], pa.timestamp("us", tz="UTC"))
    path = write(tmp_path / "a.parquet", devices=["a", "a", "a", None, ""], times=times)
    source = Source.local(path)
    slices = FORMAT.cut(source, 3, COLUMNS)
    parsed = [piece for part in slices for piece in FORMAT.read(source, part.place, COLUMNS)]
    assert sum(part.table.num_rows for part in parsed) == 2
    assert [(reject.line, reject.column) for part in parsed for reject in part.rejects] == [
        (2, "time"),
        (4, "device"),
        (5, "device"),
    ]


def test_a_file_that_cannot_be_loaded_is_refused(tmp_path: Path) -> None:
    naive = pa.array([datetime(2024, 5, 1)], pa.timestamp("us"))  # noqa: DTZ001 - naive on purpose
    with pytest.raises(
        BadInput, match=r"expected timestamps with a time zone in column 'time', or the option timezone"
    ):
        FORMAT.check(Source.local(write(tmp_path / "naive.parquet", devices=["a"], times=naive)), COLUMNS)
    with pytest.raises(BadInput, match="expected integers, floats or decimals in column 'load', got string"):
        FORMAT.check(Source.local(write(tmp_path / "text.parquet", devices=["a"], loads=pa.array(["1"]))), COLUMNS)
    with pytest.raises(BadInput, match="missing column 'heat'; the file has the columns device, load, time"):
        FORMAT.check(Source.local(write(tmp_path / "less.parquet", devices=["a"])), Columns("time", (), ("heat",)))
    with pytest.raises(BadInput, match="the file has no rows"):
        FORMAT.check(Source.local(write(tmp_path / "none.parquet", devices=[])), COLUMNS)
    (tmp_path / "fake.parquet").write_bytes(b"time,device\n" * 5)
    with pytest.raises(BadInput, match="not a valid Parquet file"):
        FORMAT.check(Source.local(tmp_path / "fake.parquet"), COLUMNS)


def test_label_columns_of_other_types_are_refused_and_invalid_labels_rejected(tmp_path: Path) -> None:
    nested = tmp_path / "nested.parquet"
    pq.write_table(
        pa.table({"time": pa.array([NOON], pa.timestamp("us", "UTC")), "device": [["a"]], "load": [1]}), nested
    )
    with pytest.raises(BadInput, match=r"expected strings, integers or booleans in column 'device', got list<.*>"):
        FORMAT.check(Source.local(nested), COLUMNS)
    path = write(tmp_path / "a.parquet", devices=["a", "b\0c", "x" * 2001])
    (part,) = FORMAT.cut(Source.local(path), 100, COLUMNS)
    (parsed,) = FORMAT.read(Source.local(path), part.place, COLUMNS)
    assert parsed.table["device"].to_pylist() == ["a"]
    assert [(reject.line, reject.detail.split()[-1]) for reject in parsed.rejects] == [(2, "labels"), (3, "total")]
    assert not any("\0" in reject.raw for reject in parsed.rejects)


def test_a_time_out_of_the_range_of_python_is_rejected(tmp_path: Path) -> None:
    times = pa.array([0, 4 * 10**17, -(10**17)], pa.int64()).cast(pa.timestamp("us", tz="UTC"))
    path = write(tmp_path / "a.parquet", devices=["a", "a", "a"], times=times)
    (part,) = FORMAT.cut(Source.local(path), 100, COLUMNS)
    (parsed,) = FORMAT.read(Source.local(path), part.place, COLUMNS)
    assert parsed.table.num_rows == 1
    assert [reject.line for reject in parsed.rejects] == [2, 3]


def test_the_error_of_a_damaged_file_names_it(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", devices=["a"] * 1000)
    (part,) = FORMAT.cut(Source.local(path), 10_000, COLUMNS)
    content = bytearray(path.read_bytes())
    content[4:60] = b"\xff" * 56
    path.write_bytes(content)
    with pytest.raises(BadInput, match=r"a\.parquet: cannot read row groups"):
        list(FORMAT.read(Source.local(path), part.place, COLUMNS))


def test_a_row_group_that_is_larger_than_a_batch_is_divided(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"time": [NOON] * 23, "device": ["a"] * 23, "load": range(23)})
    pq.write_table(table, path, row_group_size=10)
    source = Source.local(path)
    slices = list(FORMAT.cut(source, 4, COLUMNS))
    assert [(part.row_count, part.place["groups"]) for part in slices] == [
        *[(4, (0, 1)), (4, (0, 1)), (2, (0, 1)), (4, (1, 2)), (4, (1, 2)), (2, (1, 2))],
        (3, (2, 3)),
    ]
    parsed = [piece.table for part in slices for piece in FORMAT.read(source, part.place, COLUMNS)]
    assert pa.concat_tables(parsed)["load"].to_pylist() == list(range(23))


def test_a_slice_of_an_older_version_that_lists_its_row_groups_is_read(tmp_path: Path) -> None:
    """Batches may wait in the ledger during an upgrade."""
    source = Source.local(write(tmp_path / "a.parquet", devices=["a"] * 10))
    place = {"row_groups": [1, 2], "skip": 0, "rows": 6, "first_row": 3}
    parsed = pa.concat_tables([piece.table for piece in FORMAT.read(source, place, COLUMNS)])
    assert parsed["load"].to_pylist() == list(range(3, 9))


def test_the_ledger_entry_of_a_slice_does_not_grow_with_its_row_groups(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    table = pa.table({"time": [NOON] * 500, "device": ["a"] * 500, "load": range(500)})
    pq.write_table(table, path, row_group_size=1)
    (part,) = FORMAT.cut(Source.local(path), 1000, COLUMNS)
    assert len(json.dumps(part.place)) < 100
    assert sum(parsed.table.num_rows for parsed in FORMAT.read(Source.local(path), part.place, COLUMNS)) == 500


def test_any_wrong_byte_causes_at_most_an_error(tmp_path: Path) -> None:
    path = write(tmp_path / "a.parquet", devices=["a", "b"] * 5)
    source, content = Source.local(path), path.read_bytes()
    refused = 0
    for position in range(0, len(content), 5):
        path.write_bytes(content[:position] + bytes([content[position] ^ 0xFF]) + content[position + 1 :])
        try:
            FORMAT.check(source, COLUMNS)
            for part in FORMAT.cut(source, 4, COLUMNS):
                list(FORMAT.read(source, part.place, COLUMNS))
        except BadInput:
            refused += 1
    assert refused > 0


def test_a_long_and_frequent_label_takes_no_more_memory_than_in_the_file(tmp_path: Path) -> None:
    path = tmp_path / "a.parquet"
    labels = pa.DictionaryArray.from_arrays(pa.array([0] * 4_999 + [1]), ["x" * 300_000, "a"])
    table = pa.table({"time": [NOON] * 5_000, "device": labels, "load": [1.0] * 5_000})
    pq.write_table(table, path, compression="zstd")
    assert path.stat().st_size < 100_000
    allocated = pa.total_allocated_bytes()
    (part,) = FORMAT.cut(Source.local(path), 100_000, COLUMNS)
    devices: list[str] = []
    rejected = 0
    for parsed in FORMAT.read(Source.local(path), part.place, COLUMNS):
        devices += parsed.table["device"].to_pylist()
        rejected += len(parsed.rejects)
        assert {str(reject.fault) for reject in parsed.rejects} == {"labels too long"}
        assert max((len(reject.raw) for reject in parsed.rejects), default=0) < 11_000
    assert (devices, rejected) == (["a"], 4_999)
    assert pa.total_allocated_bytes() - allocated < 50 << 20


def test_an_epoch_time_beyond_64_bits_is_out_of_range(tmp_path: Path) -> None:
    times = pa.array([1714521600, 2**63 + 5], pa.uint64())
    path = write(tmp_path / "a.parquet", devices=["a", "b"], times=times)
    columns = Columns("time", ("device",), ("load",), times=TimeFormat("s"))
    FORMAT.check(Source.local(path), columns)
    (part,) = FORMAT.cut(Source.local(path), 10, columns)
    (parsed,) = FORMAT.read(Source.local(path), part.place, columns)
    assert parsed.table["device"].to_pylist() == ["a"]
    assert [(reject.line, str(reject.fault)) for reject in parsed.rejects] == [(2, "time out of range")]


def test_a_footer_that_counts_rows_without_a_row_group_is_refused(tmp_path: Path) -> None:
    path = tmp_path / "readings.parquet"
    with pq.ParquetWriter(path, pa.schema([("time", pa.timestamp("us", "UTC")), ("load", pa.float64())])):
        pass
    no_rows, five_rows, no_groups = b"\x16\x00", b"\x16\x0a", b"\x19\x0c"  # in Thrift's compact protocol
    content = path.read_bytes()
    assert content.count(no_rows + no_groups) == 1
    path.write_bytes(content.replace(no_rows + no_groups, five_rows + no_groups))
    source, columns = Source.local(path), Columns("time", (), ("load",))
    FORMAT.check(source, columns)
    with pytest.raises(BadInput, match="the file has no rows"):
        list(FORMAT.cut(source, 10, columns))
    assert sample_file(source, FORMAT, [], columns, 1_000_000) == []
