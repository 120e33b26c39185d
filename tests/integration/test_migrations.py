"""Migrations take the data along."""

import json

import pytest
from django.core.management import call_command
from django.db import connection

pytestmark = pytest.mark.django_db(transaction=True)

JOB = """
    INSERT INTO ingest_job (format, time_column, label_columns, value_columns, null_values, created_at)
    VALUES (%s, 'time', '{device}', '{load}', '{}', now()) RETURNING id
"""
BATCH = """
    INSERT INTO ingest_batch (job_id, path, slice, row_count, state, inserted_count, skipped_count, rejected_count,
                              error, enqueued_at)
    VALUES (%s, %s, %s, 5, 'queued', 0, 0, 0, '', now())
"""
STAMPS = (("/a.parquet", (70, 7)), ("/a.parquet", (70, 7)), ("/b.parquet", (0, 0)))


def test_batches_that_named_their_files_by_path_find_them_in_the_table_and_back() -> None:
    call_command("migrate", "telemetry", "0003", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute(JOB, ["parquet"])
        (job_id,) = cursor.fetchone()
        for path, (size_bytes, mtime_ns) in STAMPS:
            stamp = {"size": size_bytes, "mtime_ns": mtime_ns} if size_bytes else None  # the oldest have none
            cursor.execute(BATCH, [job_id, path, json.dumps({"row_groups": [0], "first_row": 0, "stamp": stamp})])
    call_command("migrate", "telemetry", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("""
            SELECT name, location, size_bytes, mtime_ns, slice
            FROM ingest_batch batch JOIN ingest_file file ON file.id = file_id ORDER BY batch.id
        """)
        place = {"row_groups": [0], "first_row": 0, "skip": 0, "rows": 5}
        found = cursor.fetchall()
        assert [row[:4] for row in found] == [(path, path, *stamp) for path, stamp in STAMPS]
        assert [json.loads(row[4]) for row in found] == [place] * 3
        cursor.execute("SELECT count(*) FROM ingest_file")
        assert cursor.fetchone() == (2,)
    call_command("migrate", "telemetry", "0003", verbosity=0)
    with connection.cursor() as cursor:
        cursor.execute("SELECT path, slice #>> '{stamp,size}' FROM ingest_batch ORDER BY id")
        assert cursor.fetchall() == [(path, str(stamp[0])) for path, stamp in STAMPS]
        cursor.execute("TRUNCATE ingest_job CASCADE")
    call_command("migrate", verbosity=0)  # what depends on it went with it
