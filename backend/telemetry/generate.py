"""Synthetic device metrics: a daily wave, a level per device, and noise; the same seed gives the same metrics."""

import os
import re
from collections import deque
from collections.abc import Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass
from datetime import UTC, datetime, timedelta
from itertools import islice
from pathlib import Path
from typing import IO

import numpy as np
import pyarrow as pa
import pyarrow.csv as pa_csv
import pyarrow.parquet as pq

SCHEMA = pa.schema([("time", pa.timestamp("us", tz="UTC")), ("device", pa.string()), ("value", pa.float64())])
BLOCK_ROWS = 200_000
DAY_S = 86_400
SPANS_S = {"s": 1, "min": 60, "h": 3600, "d": DAY_S}


@dataclass(frozen=True)
class Fleet:
    """Devices that each measure one value at a fixed rate."""

    devices: int
    interval_us: int
    """between two measurements of a device"""
    begin: datetime
    end: datetime
    """exclusive"""
    seed: int

    @property
    def ticks(self) -> int:
        """The number of measurements of each device."""
        return -(-_microseconds(self.end - self.begin) // self.interval_us)

    @property
    def row_count(self) -> int:
        """The number of measurements of all devices."""
        return self.ticks * self.devices

    @property
    def block_count(self) -> int:
        """The number of blocks that `blocks` yields."""
        return -(-self.ticks // self._ticks_per_block)

    @property
    def _ticks_per_block(self) -> int:
        return max(1, BLOCK_ROWS // self.devices)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Yield the measurements in order of time, in blocks of about BLOCK_ROWS rows.

        A block depends only on the seed and on its number.
        """
        names = pa.array([f"device-{number:05d}" for number in range(self.devices)])
        level, phase = _levels_and_phases(self.seed, self.devices)
        for number, first in enumerate(range(0, self.ticks, self._ticks_per_block)):
            ticks = np.arange(first, min(first + self._ticks_per_block, self.ticks), dtype=np.int64)
            time_us = _microseconds(self.begin - datetime(1970, 1, 1, tzinfo=UTC)) + ticks * self.interval_us
            day = (time_us / 1e6 / DAY_S)[:, np.newaxis]
            noise = np.random.default_rng([self.seed, number]).normal(0, 1.5, (len(ticks), self.devices))
            value = level + 8 * np.sin(2 * np.pi * (day + phase)) + noise
            yield pa.RecordBatch.from_arrays(
                [
                    pa.array(np.repeat(time_us, self.devices)).cast(SCHEMA.field("time").type),
                    names.take(pa.array(np.tile(np.arange(self.devices, dtype=np.int32), len(ticks)))),
                    pa.array(np.round(value.ravel(), 3)),
                ],
                schema=SCHEMA,
            )


def interval_us_of(rate: str) -> int:
    """Return the time between two measurements, in microseconds, from a rate such as 10/s, 1/min, 4/h or 1/d.

    Raises:
        ValueError: it is not a rate, or zero, or over a million per unit.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|min|h|d)", rate)
    if not match or float(match[1]) == 0 or float(match[1]) > 1e6:
        raise ValueError(f"expected a rate of up to 1000000 per s, min, h or d, such as 1/min, got {rate!r}")
    return round(SPANS_S[match[2]] * 1e6 / float(match[1]))


def _levels_and_phases(seed: int, devices: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, devices, 0xD0])
    return rng.uniform(20, 80, devices), rng.uniform(0, 1, devices)


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def write(fleet: Fleet, path: Path) -> Iterator[int]:
    """Write measurements to a CSV or Parquet file, and yield the number of rows of each block.

    Raises:
        ValueError: the file name ends neither in .csv nor in .parquet.
        OSError: the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ValueError(f"expected a file name that ends in .csv or .parquet, got the ending {ending!r}")
    with path.open("wb") as file:
        yield from _write_csv(fleet, file) if ending == ".csv" else write_parquet(fleet, file)


def write_parquet(fleet: Fleet, sink: IO[bytes] | pa.NativeFile) -> Iterator[int]:
    """Write measurements as Parquet, and yield the number of rows of each block.

    Raises:
        OSError: the sink cannot be written to.
    """
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for block in fleet.blocks():
            writer.write_batch(block)
            yield block.num_rows


def _write_csv(fleet: Fleet, sink: IO[bytes] | pa.NativeFile) -> Iterator[int]:
    """Format blocks on one thread per processor, some blocks ahead, because formatting takes longer than writing."""
    threads = os.cpu_count() or 1
    with ThreadPoolExecutor(threads) as formatters:
        sink.write(f"{','.join(SCHEMA.names)}\n".encode())
        ahead: deque[tuple[int, Future[bytes]]] = deque()
        blocks = fleet.blocks()
        while True:
            for block in islice(blocks, threads + 1 - len(ahead)):
                ahead.append((block.num_rows, formatters.submit(_csv_bytes, block)))
            if not ahead:
                return
            row_count, text = ahead.popleft()
            sink.write(text.result())
            yield row_count


def _csv_bytes(block: pa.RecordBatch) -> bytes:
    sink = pa.BufferOutputStream()
    pa_csv.write_csv(block, sink, pa_csv.WriteOptions(include_header=False, quoting_style="none"))
    return bytes(sink.getvalue())
