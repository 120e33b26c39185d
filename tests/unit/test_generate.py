"""Synthetic metrics: reproducible by seed, in every format, at the given rate."""

from datetime import UTC, datetime, timedelta
from pathlib import Path

import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq
import pytest

from telemetry import generate
from telemetry.generate import Fleet, interval_us_of, write

MAY = datetime(2024, 5, 1, tzinfo=UTC)


def fleet(seed: int = 1, hours: float = 3) -> Fleet:
    return Fleet(7, interval_us_of("1/min"), MAY, MAY + timedelta(hours=hours), seed)


def table(of: Fleet) -> pa.Table:
    return pa.Table.from_batches(of.blocks())


def test_each_device_measures_at_its_rate_from_begin_to_before_end() -> None:
    rows = table(fleet()).to_pylist()
    assert len(rows) == fleet().row_count == 7 * 180
    times = [row["time"] for row in rows if row["device"] == "device-00003"]
    assert times == [MAY + timedelta(minutes=minute) for minute in range(180)]


def test_the_same_seed_gives_the_same_readings() -> None:
    assert table(fleet(seed=1)).equals(table(fleet(seed=1)))
    assert not table(fleet(seed=1)).equals(table(fleet(seed=2)))


def test_a_longer_range_begins_with_the_readings_of_a_shorter_one(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "BLOCK_ROWS", 70)
    long, short = table(fleet(hours=3)), table(fleet(hours=1))
    assert long.slice(0, short.num_rows).equals(short)
    assert fleet(hours=3).block_count == 18


def test_csv_and_parquet_have_the_same_rows_in_the_same_order(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(generate, "BLOCK_ROWS", 70)
    for ending in ("csv", "parquet"):
        assert sum(write(fleet(), tmp_path / f"a.{ending}")) == fleet().row_count
    types = pa_csv.ConvertOptions(column_types=generate.SCHEMA)
    from_csv = pa_csv.read_csv(tmp_path / "a.csv", convert_options=types)
    assert from_csv.equals(pq.read_table(tmp_path / "a.parquet"))
    assert from_csv.equals(table(fleet()))


@pytest.mark.parametrize(("rate", "interval_us"), [("10/s", 100_000), ("1/min", 60_000_000), ("0.5/h", 7_200_000_000)])
def test_a_rate_is_read_as_an_interval(rate: str, interval_us: int) -> None:
    assert interval_us_of(rate) == interval_us


@pytest.mark.parametrize("rate", ["", "5", "5/week", "0/s", "-1/s", "9999999/s"])
def test_an_invalid_rate_is_refused(rate: str) -> None:
    with pytest.raises(ValueError, match="expected a rate of up to 1000000 per s, min, h or d"):
        interval_us_of(rate)


def test_a_file_of_another_ending_is_refused(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"ends in \.csv or \.parquet, got the ending '\.xlsx'"):
        list(write(fleet(), tmp_path / "a.xlsx"))
