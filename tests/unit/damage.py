"""Damages small files and reads them, in a separate process: `python -m tests.unit.damage` (see test_damage.py).

Every damaged file is cut and read, and also read by the slices of the whole file. Only BadInput may be raised; anything
else ends the process.
"""

import random
import sys
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import pyarrow as pa
import pyarrow.parquet as pq
from django.conf import settings
from pyarrow import ipc

from telemetry import formats
from telemetry.formats import BadInput, Columns, Slice
from telemetry.formats.source import Source

COLUMNS = Columns("time", ("device",), ("load", "heat"))
ROWS, GROUP_ROWS, BATCH_ROWS = 60, 25, 50


def readings() -> pa.Table:
    """Return the content of the undamaged files."""
    times = pa.array([1_714_521_600_000_000 + n * 60_000_000 for n in range(ROWS)], pa.timestamp("us", "UTC"))
    devices = pa.array([f"device-{n % 3}" for n in range(ROWS)])
    loads = pa.array([None if n % 7 == 0 else n * 1.5 for n in range(ROWS)])
    return pa.table({"time": times, "device": devices, "load": loads, "heat": pa.array(range(ROWS), pa.int64())})


def write_parquet(path: Path, **how: object) -> Path:
    """Write the readings as Parquet."""
    pq.write_table(readings(), path, row_group_size=GROUP_ROWS, **how)
    return path


def write_arrow(path: Path, compression: str | None = None) -> Path:
    """Write the readings as Arrow, with labels as a dictionary."""
    table = readings()
    table = table.set_column(1, "device", table["device"].dictionary_encode())
    with ipc.new_file(str(path), table.schema, options=ipc.IpcWriteOptions(compression=compression)) as writer:
        writer.write_table(table, max_chunksize=GROUP_ROWS)
    return path


def with_other_repetition(data: bytes) -> bytes:
    """Change Parquet's schema to make a column required although its statistics count nulls."""
    return data.replace(b"\x25\x02\x18\x04load", b"\x25\x00\x18\x04load", 1)


def whole_files(folder: Path) -> Iterator[Path]:
    """Write a file of each kind that has to be damaged."""
    for compression in ("none", "snappy", "zstd", "gzip"):
        yield write_parquet(folder / f"{compression}.parquet", compression=compression)
    yield write_parquet(folder / "crc.parquet", write_page_checksum=True, data_page_version="2.0")
    for encoding in ("DELTA_BYTE_ARRAY", "DELTA_LENGTH_BYTE_ARRAY"):
        path = folder / f"{encoding}.parquet"
        yield write_parquet(path, use_dictionary=False, column_encoding={"device": encoding})
    for codec in (None, "lz4", "zstd"):
        yield write_arrow(folder / f"{codec}.arrow", codec)


def damaged(data: bytes, random: random.Random) -> bytes:
    """Flip bits, overwrite some bytes, or cut the file off."""
    changed, at = bytearray(data), random.randrange(len(data))
    match random.randrange(4):
        case 0:
            del changed[at:]
        case 1:
            changed[at : at + 16] = random.randbytes(min(16, len(data) - at))
        case _:
            for _ in range(random.choice((1, 1, 4))):
                changed[random.randrange(len(data))] ^= 1 << random.randrange(8)
    return bytes(changed)


def read_all(path: Path, before: list[Slice]) -> Counter[str]:
    """Cut and read a file, and read its old slices; return the numbers of loaded and refused ones."""
    source, file_format = Source.local(path), formats.recognise(str(path)).format
    outcomes: Counter[str] = Counter()
    slices = list(before)
    try:
        file_format.check(source, COLUMNS)
        slices += file_format.cut(source, BATCH_ROWS, COLUMNS)
    except BadInput:
        outcomes["refused"] += 1
    for part in slices:
        try:
            outcomes["rows"] += sum(parsed.table.num_rows for parsed in file_format.read(source, part.place, COLUMNS))
        except BadInput:
            outcomes["parked"] += 1
    return outcomes


def main(folder: Path, seed: int, count: int) -> None:
    """Damage each kind of file the given number of times."""
    outcomes: Counter[str] = Counter()
    for path in whole_files(folder):
        data, source = path.read_bytes(), Source.local(path)
        before = list(formats.recognise(str(path)).format.cut(source, BATCH_ROWS, COLUMNS))
        changes = [damaged(data, random.Random(f"{seed} {path.name} {n}")) for n in range(count)]
        for n, changed in enumerate([with_other_repetition(data), *changes]):
            path.write_bytes(changed)
            sys.stderr.write(f"{path.name}, change {n} of seed {seed}\n")  # the last of these names what went wrong
            outcomes += read_all(path, before)
    sys.stdout.write(f"{dict(outcomes)}\n")


if __name__ == "__main__":
    settings.configure(INGEST_WORKER_MEMORY_BYTES=512 << 20)
    main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3]))
