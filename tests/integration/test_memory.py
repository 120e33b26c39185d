"""A file of any shape is loaded within INGEST_WORKER_MEMORY_BYTES, or refused."""

import gzip
import json
import os
import struct
import subprocess
import sys
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import numpy as np
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
from django.db import connection
from django.test import Client
from pyarrow import ipc

from api.tokens import create_token
from config.env import CHECKOUT

pytestmark = pytest.mark.django_db(transaction=True)

START_US = int(datetime(2024, 5, 1, tzinfo=UTC).timestamp()) * 1_000_000
# The web cuts uploads in several threads, so a file may take less there.
ENQUEUE_MAX_BYTES = 128 << 20


@dataclass(frozen=True)
class Shape:
    """A file, how it is read, and the expected result."""

    write: Callable[[Path], None]
    ending: str
    values: tuple[str, ...] = ("load",)
    load_last: int = 1000
    batch_rows: int = 100_000
    error: str = ""
    memory_bytes: int = 512 << 20


def times(count: int, first: int = 0) -> pa.Array:
    return pa.array(START_US + np.arange(first, first + count) * 1000, pa.timestamp("us", "UTC"))


def growing_dictionary(path: Path) -> None:
    """Each record batch adds labels of 1 KB to the dictionary."""
    schema = pa.schema(
        [
            ("time", pa.timestamp("us", "UTC")),
            ("device", pa.dictionary(pa.int32(), pa.string())),
            ("load", pa.float64()),
        ]
    )
    labels: list[str] = []
    with ipc.new_stream(str(path), schema, options=ipc.IpcWriteOptions(emit_dictionary_deltas=True)) as writer:
        for part in range(100):
            labels += [f"{len(labels) + n:01000}" for n in range(50)]
            devices = pa.DictionaryArray.from_arrays(pa.array([len(labels) - 1] * 1000, pa.int32()), labels)
            writer.write_batch(
                pa.record_batch([times(1000, 1000 * part), devices, pa.array([1.0] * 1000)], schema=schema)
            )


def one_record_batch(path: Path) -> None:
    """200 MB, most of it in a column that is not read."""
    count = 100_000
    more = pa.array([b"x" * 2000], pa.binary(2000)).take(pa.array([0] * count))
    batch = pa.record_batch(
        {"time": times(count), "device": pa.array(["a"] * count), "load": np.ones(count), "more": more}
    )
    with ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def several_record_batches(path: Path) -> None:
    """Four of 60 MB each; two of them at once would leave no room for anything else."""
    count = 2_500_000
    schema = pa.schema([("time", pa.timestamp("us", "UTC")), ("device", pa.int64()), ("load", pa.float64())])
    with ipc.new_file(str(path), schema) as writer:
        for part in range(4):
            is_empty = np.arange(count) % 100 > 0
            columns = [times(count, part * count), np.zeros(count, np.int64), pa.array(np.ones(count), mask=is_empty)]
            writer.write_batch(pa.record_batch(columns, schema=schema))


def too_large_a_record_batch(path: Path) -> None:
    """As above, of 300 MB."""
    count = 150_000
    more = pa.array([b"x" * 2000], pa.binary(2000)).take(pa.array([0] * count))
    batch = pa.record_batch(
        {"time": times(count), "device": pa.array(["a"] * count), "load": np.ones(count), "more": more}
    )
    with ipc.new_file(str(path), batch.schema) as writer:
        writer.write_batch(batch)


def arrow_bomb(path: Path) -> None:
    """100 million rows of zeros, 1.7 GB, in a file of a few KB."""
    count = 100_000_000
    zeros = pa.py_buffer(np.zeros(count, np.int64))
    columns = {
        "time": pa.Array.from_buffers(pa.timestamp("us", "UTC"), count, [None, zeros]),
        "device": pa.Array.from_buffers(pa.int8(), count, [None, zeros]),
        "load": pa.Array.from_buffers(pa.float64(), count, [None, zeros]),
    }
    batch = pa.record_batch(columns)
    with ipc.new_stream(str(path), batch.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)


def arrow_bomb_of_a_label(path: Path) -> None:
    """A label of 300 MB in a file of a few KB."""
    batch = pa.record_batch({"time": times(1), "device": pa.array(["x" * (300 << 20)]), "load": [1.0]})
    with ipc.new_stream(str(path), batch.schema, options=ipc.IpcWriteOptions(compression="zstd")) as writer:
        writer.write_batch(batch)


WIDE = tuple(f"v{n:03}" for n in range(600))


def wide(path: Path) -> None:
    """600 value columns, 50,000 rows; a cell in 100 is not empty, so that loading takes less time."""
    count = 50_000
    is_empty = np.random.default_rng(1).random(count) > 0.01
    numbers = np.random.default_rng(2).random(count)
    columns = {name: pa.array(np.roll(numbers, n), mask=np.roll(is_empty, n)) for n, name in enumerate(WIDE)}
    pq.write_table(pa.table({"time": times(count), "device": pa.array(["a"] * count), **columns}), path)


def wide_and_dense(path: Path) -> None:
    """600 value columns, 1,500 rows, no cell empty."""
    count = 1_500
    numbers = np.random.default_rng(2).random(count)
    columns = {name: pa.array(np.roll(numbers, n)) for n, name in enumerate(WIDE)}
    pq.write_table(pa.table({"time": times(count), "device": pa.array(["a"] * count), **columns}), path)


def one_row_group(path: Path) -> None:
    """160 MB in one row group."""
    count = 10_000_000
    table = pa.table(
        {
            "time": times(count),
            "device": pa.array(["a"]).take(pa.array(np.zeros(count, np.int8))),
            "load": np.random.default_rng(1).random(count),
        }
    )
    pq.write_table(table, path, row_group_size=count, compression="none", use_dictionary=["device"])


def page_bomb(path: Path) -> None:
    """A page of 300 MB of one label in a file of a few KB."""
    table = pa.table({"time": times(2), "device": pa.array(["x" * (300 << 20), "a"]), "load": [1.0, 2.0]})
    pq.write_table(table, path, compression="zstd", use_dictionary=False, write_statistics=False)


def prefixes(path: Path) -> None:
    """1,000 labels of 700 KB that share their beginning, which the file has once."""
    schema = pa.schema([("time", pa.timestamp("us", "UTC")), ("device", pa.string()), ("load", pa.float64())])
    encoding = {"device": "DELTA_BYTE_ARRAY"}
    with pq.ParquetWriter(
        path, schema, use_dictionary=False, column_encoding=encoding, write_statistics=False
    ) as writer:
        for first in range(0, 1000, 10):
            labels = [f"{'x' * 700_000}{first + n}" for n in range(10)]
            writer.write_batch(pa.record_batch([times(10, first), pa.array(labels), np.ones(10)], schema=schema))


def packed_csv(path: Path) -> None:
    """200 MB in 200 KB."""
    lines = b"2024-05-01T00:00:00Z,a,1\n" * 40_000
    with gzip.open(path, "wb") as file:
        file.write(b"time,device,load\n")
        for _ in range(200):
            file.write(lines)


def quoted_newlines(path: Path) -> None:
    """16 MB of records of a thousand lines each."""
    record = b'2024-05-01T00:00:00Z,"a' + b"\n" * 1000 + b'",1\n'
    path.write_bytes(b"time,device,load\n" + record * 16_000)


def rejects_alone(path: Path) -> None:
    """A row, so that the file is not refused, and 7 MB of rows that are rejected."""
    rubbish = b"soon,%s,1\n" % (b"x" * 100) + b"\n"
    path.write_bytes(b"time,device,load\n2024-05-01T00:00:00Z,a,1\n" + rubbish * 60_000)


def nested_line(path: Path) -> None:
    """A row, lines of many objects that are read by Python, and one that would take gigabytes there."""
    begin = b'{"time":"2024-05-01T00:00:00Z","device":"a","load":1,"y":"\\u0000","z":['
    lines = [begin + b"{}," * count + b"{}]}\n" for count in (0, *[45_000] * 5, 5_000_000)]
    path.write_bytes(b"".join(lines))


SHAPES = {
    "Arrow, a dictionary that grows": Shape(growing_dictionary, ".arrow"),
    "Arrow, one large record batch": Shape(one_record_batch, ".arrow"),
    "Arrow, several large record batches": Shape(several_record_batches, ".arrow", memory_bytes=128 << 20),
    "Arrow, too large a record batch": Shape(
        too_large_a_record_batch, ".arrow", error="a record batch of 150,000 rows takes 3"
    ),
    "Arrow, a bomb": Shape(arrow_bomb, ".arrow", error="a record batch of 100,000,000 rows takes 1,7"),
    "Arrow, a bomb of a label": Shape(arrow_bomb_of_a_label, ".arrow", error="a record batch of 1 rows takes 314,"),
    "Parquet, wide": Shape(wide, ".parquet", WIDE),
    "Parquet, wide and dense": Shape(wide_and_dense, ".parquet", WIDE),
    "Parquet, one row group": Shape(one_row_group, ".parquet", load_last=1),
    "Parquet, a bomb of a page": Shape(page_bomb, ".parquet", error="a page of column 'device' takes 314,"),
    "Parquet, labels with a common beginning": Shape(prefixes, ".parquet"),
    "CSV, packed": Shape(packed_csv, ".csv.gz", load_last=1),
    "CSV, quoted newlines": Shape(quoted_newlines, ".csv", memory_bytes=128 << 20),
    "CSV, nothing but rejects": Shape(rejects_alone, ".csv", memory_bytes=128 << 20),
    "NDJSON, nested line": Shape(nested_line, ".ndjson", batch_rows=1),
}


def run(path: Path, shape: Shape) -> dict[str, Any]:
    arguments = {
        "path": str(path),
        "columns": {"time": "time", "labels": ["device"], "values": shape.values},
        "batch_rows": shape.batch_rows,
        "load_last": shape.load_last,
    }
    environment = {
        **os.environ,
        "PYTHONPATH": os.pathsep.join([str(CHECKOUT), str(CHECKOUT / "backend")]),
        "DJANGO_SETTINGS_MODULE": "config.settings",
        "DB_NAME": connection.settings_dict["NAME"],
        "CELERY_WORKER_RUNNING": "1",
        "SERVICE_NAME": "worker",
        "INGEST_WORKER_MEMORY_BYTES": str(shape.memory_bytes),
    }
    command = [sys.executable, "-m", "tests.integration.memory_probe", json.dumps(arguments)]
    answer = subprocess.run(command, env=environment, cwd=CHECKOUT, capture_output=True, text=True)
    assert answer.returncode == 0, answer.stderr
    found: dict[str, Any] = json.loads(answer.stdout.splitlines()[-1])
    return found


@pytest.mark.usefixtures("sent")
def test_an_upload_with_a_large_window_is_refused() -> None:
    client = Client(
        headers={"Authorization": f"Bearer {create_token('tests')}"},
    )
    address = "/api/ingest/?time=time&labels=device&values=load"
    large_window = struct.pack("<IBB", 0xFD2FB528, 0, (27 - 10) << 3) + b"\x01\x00\x00"
    headers = {"Content-Encoding": "zstd"}
    refused = client.post(address, large_window, content_type="text/csv", headers=headers)
    assert refused.status_code == 422
    assert (
        "the body cannot be unpacked as zstd: a frame needs a window of 134,217,728 bytes, the limit is 8,388,608"
        in refused.json()["detail"]
    )
    packed = pa.compress(b"time,device,load\n2024-05-01T00:00Z,a,1\n", "zstd", asbytes=True)
    assert client.post(address, packed, content_type="text/csv", headers=headers).status_code == 202


@pytest.mark.parametrize("name", SHAPES)
def test_a_file_is_loaded_within_the_memory_limit_or_refused(tmp_path: Path, name: str) -> None:
    shape = SHAPES[name]
    path = tmp_path / f"a{shape.ending}"
    shape.write(path)
    found = run(path, shape)
    assert found["load_bytes"] <= shape.memory_bytes, found
    assert found["enqueue_bytes"] <= ENQUEUE_MAX_BYTES, found
    if shape.error:
        assert shape.error in found["errors"][0]
    else:
        assert (found["errors"], found["loaded"] > 0) == ([], True)
        assert found["slice_bytes"] < 1000
