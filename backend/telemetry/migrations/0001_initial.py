"""The schema of telemetry/sql/0001_schema.sql; the state operations describe it to Django."""

import django.contrib.postgres.fields
import django.db.models.deletion
from django.db import migrations, models

from telemetry.sql import read_sql

TEXTS = django.contrib.postgres.fields.ArrayField(base_field=models.TextField(), size=None)
STATES = [("queued", "Queued"), ("done", "Done"), ("failed", "Failed")]


def _id() -> "models.BigAutoField[int, int]":
    return models.BigAutoField(auto_created=True, primary_key=True, serialize=False, verbose_name="ID")


MODELS = [
    migrations.CreateModel(
        name="Series",
        fields=[
            ("id", models.AutoField(primary_key=True, serialize=False)),
            ("metric", models.TextField()),
            ("labels", models.JSONField()),
        ],
        options={
            "db_table": "series",
            "verbose_name_plural": "series",
            "constraints": [
                models.UniqueConstraint(fields=("metric", "labels"), name="series_metric_labels_unique"),
            ],
        },
    ),
    migrations.CreateModel(
        name="Reading",
        fields=[
            (
                "pk",
                models.CompositePrimaryKey(
                    "series", "time", blank=True, editable=False, primary_key=True, serialize=False
                ),
            ),
            ("time", models.DateTimeField()),
            (
                "series",
                models.ForeignKey(
                    db_constraint=False,
                    db_index=False,
                    on_delete=django.db.models.deletion.DO_NOTHING,
                    to="telemetry.series",
                ),
            ),
            ("value", models.FloatField()),
        ],
        options={"db_table": "reading"},
    ),
    migrations.CreateModel(
        name="IngestJob",
        fields=[
            ("id", _id()),
            ("format", models.TextField()),
            ("time_column", models.TextField()),
            ("label_columns", TEXTS),
            ("value_columns", TEXTS),
            ("null_values", TEXTS),
            ("created_at", models.DateTimeField()),
        ],
        options={"db_table": "ingest_job"},
    ),
    migrations.CreateModel(
        name="IngestBatch",
        fields=[
            ("id", _id()),
            (
                "job",
                models.ForeignKey(
                    on_delete=django.db.models.deletion.CASCADE, related_name="batches", to="telemetry.ingestjob"
                ),
            ),
            ("path", models.TextField()),
            ("slice", models.JSONField(help_text="position in the file, in a form that depends on the file's format")),
            ("row_count", models.BigIntegerField(help_text="input rows")),
            ("state", models.TextField(choices=STATES, default="queued")),
            (
                "inserted_count",
                models.BigIntegerField(default=0, help_text="readings that were new in the hypertable"),
            ),
            ("skipped_count", models.BigIntegerField(default=0, help_text="readings that existed already")),
            ("rejected_count", models.BigIntegerField(default=0, help_text="input rows that could not be read")),
            ("error", models.TextField(blank=True, default="")),
            ("enqueued_at", models.DateTimeField()),
            ("finished_at", models.DateTimeField(blank=True, null=True)),
        ],
        options={
            "db_table": "ingest_batch",
            "verbose_name_plural": "ingest batches",
            "indexes": [
                models.Index(
                    condition=models.Q(("state", "queued")), fields=["enqueued_at"], name="ingest_batch_unfinished"
                ),
            ],
        },
    ),
    migrations.CreateModel(
        name="IngestReject",
        fields=[
            ("id", _id()),
            (
                "batch",
                models.ForeignKey(
                    on_delete=django.db.models.deletion.CASCADE, related_name="rejects", to="telemetry.ingestbatch"
                ),
            ),
            ("line", models.BigIntegerField(help_text="line in the file, counted from 1; in Parquet, the row")),
            ("column_name", models.TextField()),
            ("reason", models.TextField()),
            ("raw", models.TextField(help_text="the row as it is in the file")),
        ],
        options={"db_table": "ingest_reject"},
    ),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    initial = True
    dependencies = []
    operations = [
        migrations.RunSQL(read_sql("0001_schema"), read_sql("0001_schema_reverse"), state_operations=MODELS),
    ]
