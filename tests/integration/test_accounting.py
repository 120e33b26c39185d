"""For any table and any slices, the counts add up, and the loaded readings equal those of a simple model."""

import tempfile
from pathlib import Path

import pytest
from django.db import connection
from django.db.models import Sum
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from telemetry.formats import Columns
from telemetry.inputs import Inputs, open_input
from telemetry.intake import create_job
from telemetry.models import IngestBatch, Reading
from worker.loader import load
from worker.series import forget_series

pytestmark = pytest.mark.django_db(transaction=True)

TIMES = {"2024-05-01T00:00:00Z": 0, "2024-05-01T02:00+02:00": 0, "2024-05-01 01:00Z": 1, "2024-05-02T00:00Z": 24}
RUBBISH_TIMES = ("", "soon", "2024-05-01T00:00:00", "2024-02-30T00:00Z")
VALUES = {"": None, "1": 1.0, "-2.5": -2.5, "1e3": 1000.0}
RUBBISH_VALUES = ("x", "1,5", "1e999", "0x1")
DEVICES, RUBBISH_DEVICES = ("a", "b", '"c,d"', '"e\nf"', "g'"), ("",)

cells = st.tuples(
    st.sampled_from((*TIMES, *TIMES, *RUBBISH_TIMES)),
    st.sampled_from((*DEVICES, *DEVICES, *RUBBISH_DEVICES)),
    st.sampled_from((*VALUES, *VALUES, *RUBBISH_VALUES)),
    st.sampled_from((*VALUES, *VALUES, *RUBBISH_VALUES)),
)


def model(rows: list[tuple[str, str, str, str]], on_conflict: str) -> tuple[dict[tuple[str, str, int], float], int]:
    """Return the readings that the table must have, and the number of rows that must be rejected."""
    table: dict[tuple[str, str, int], float] = {}
    rejected = 0
    for time, device, *values in rows:
        if time not in TIMES or device not in DEVICES or any(value.strip('"') not in VALUES for value in values):
            rejected += 1
            continue
        for metric, value in zip(("load", "heat"), (VALUES[value.strip('"')] for value in values), strict=True):
            key = (metric, device.strip('"'), TIMES[time])
            if value is not None and (key not in table or on_conflict == "update"):
                table[key] = value
    return table, rejected


@settings(max_examples=60, deadline=None, suppress_health_check=[HealthCheck.function_scoped_fixture], database=None)
@given(
    rows=st.lists(cells, min_size=1, max_size=12),
    batch_rows=st.integers(1, 13),
    piece_bytes=st.sampled_from((1, 60, 1 << 20)),
    on_conflict=st.sampled_from(("ignore", "update")),
)
def test_counts_add_up_and_the_table_equals_the_model(
    monkeypatch: pytest.MonkeyPatch,
    rows: list[tuple[str, str, str, str]],
    batch_rows: int,
    piece_bytes: int,
    on_conflict: str,
) -> None:
    monkeypatch.setattr("telemetry.formats.borders.PIECE_BYTES", piece_bytes)
    # A comma within an unquoted value would make another column; here it is a value of one.
    lines = [
        ",".join(f'"{cell}"' if "," in cell and not cell.startswith('"') else cell for cell in row) for row in rows
    ]
    monkeypatch.setattr(
        "telemetry.formats.csv.FORMAT.check", lambda *_: None
    )  # it refuses files of nothing but rubbish
    with tempfile.TemporaryDirectory() as folder:
        path = Path(folder) / "any.csv"
        path.write_text("\n".join(["time,device,load,heat", *lines, ""]))
        columns = Columns("time", ("device",), ("load", "heat"))
        job = create_job(Inputs([open_input(str(path))]), columns, batch_rows=batch_rows, on_conflict=on_conflict)
        for batch in job.batches.order_by("pk"):
            load(batch.pk)
    expected, rejected = model(rows, on_conflict)
    found = Reading.objects.values_list("series__metric", "series__labels__device", "time", "value")
    assert {
        (metric, device, (time.day - 1) * 24 + time.hour): value for metric, device, time, value in found
    } == expected
    names = (
        "row_count",
        "rejected_count",
        "cell_count",
        "inserted_count",
        "updated_count",
        "skipped_count",
        "rounded_count",
        "empty_count",
    )
    counts = IngestBatch.objects.filter(job=job).aggregate(**{name: Sum(name) for name in names})
    assert (counts["row_count"], counts["rejected_count"]) == (len(rows), rejected)
    assert counts["inserted_count"] == len(expected)
    assert counts["cell_count"] == 2 * (len(rows) - rejected)
    with connection.cursor() as cursor:
        cursor.execute("TRUNCATE reading, series, ingest_job CASCADE")
    forget_series()
