"""Made-up device metrics that look real: a daily wave, each device's own level, and noise; the same for a seed."""

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
    """Devices that each measure one value at a steady rate."""

    devices: int
    interval_us: int
    """between two measurements of a device"""
    begin: datetime
    end: datetime
    """no measurement is at or after it"""
    seed: int

    @property
    def ticks(self) -> int:
        """How often each device measures."""
        return -(-_microseconds(self.end - self.begin) // self.interval_us)

    @property
    def row_count(self) -> int:
        """How many measurements there are in all."""
        return self.ticks * self.devices

    @property
    def block_count(self) -> int:
        """How many blocks they come in."""
        return -(-self.ticks // self._ticks_per_block)

    @property
    def _ticks_per_block(self) -> int:
        return max(1, BLOCK_ROWS // self.devices)

    def blocks(self) -> Iterator[pa.RecordBatch]:
        """Yield the measurements in the order of time, in blocks of about 200,000 rows; memory holds one block.

        A block depends on the seed and on its own number alone.
        """
        names = pa.array([f"device-{number:05d}" for number in range(self.devices)])
        level, phase = _characters(self.seed, self.devices)
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
    """Read a rate (10/s, 1/min, 4/h, 1/d) as the time between two measurements, in microseconds.

    Raises:
        ValueError: it is no rate.
    """
    match = re.fullmatch(r"(\d+(?:\.\d+)?)/(s|min|h|d)", rate)
    if not match or float(match[1]) == 0 or float(match[1]) > 1e6:
        raise ValueError(f"{rate!r} is no rate; allowed: a number up to a million per s, min, h or d, as 1/min")
    return round(SPANS_S[match[2]] * 1e6 / float(match[1]))


def _characters(seed: int, devices: int) -> tuple[np.ndarray, np.ndarray]:
    rng = np.random.default_rng([seed, devices, 0xD0])
    return rng.uniform(20, 80, devices), rng.uniform(0, 1, devices)


def _microseconds(span: timedelta) -> int:
    return span // timedelta(microseconds=1)


def write(fleet: Fleet, path: Path) -> Iterator[int]:
    """Write a fleet's measurements to a file, CSV or Parquet by its ending; yield the rows of each block written.

    Raises:
        ValueError: the ending is neither.
        OSError: the file cannot be written.
    """
    ending = path.suffix.lower()
    if ending not in (".csv", ".parquet"):
        raise ValueError(f"its ending {ending!r} is neither .csv nor .parquet")
    with path.open("wb") as file:
        yield from _write_csv(fleet, file) if ending == ".csv" else write_parquet(fleet, file)


def write_parquet(fleet: Fleet, sink: IO[bytes] | pa.NativeFile) -> Iterator[int]:
    """Write a fleet's measurements as Parquet; yield the rows of each block written.

    Raises:
        OSError: the sink cannot be written to.
    """
    with pq.ParquetWriter(sink, SCHEMA, compression="zstd") as writer:
        for block in fleet.blocks():
            writer.write_batch(block)
            yield block.num_rows


def _write_csv(fleet: Fleet, sink: IO[bytes] | pa.NativeFile) -> Iterator[int]:
    """Format blocks on as many threads as there are processors, a few ahead; writing numbers as text is the work."""
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
