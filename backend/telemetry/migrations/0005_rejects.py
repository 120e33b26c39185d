"""The counts of telemetry/sql/0005_rejects.sql, in place of the rows."""

import django.db.models.deletion
from django.db import migrations, models

from telemetry.sql import read_sql

STATE = [
    migrations.DeleteModel(name="IngestReject"),
    migrations.CreateModel(
        name="IngestRejectCount",
        fields=[
            (
                "pk",
                models.CompositePrimaryKey(
                    "batch", "reason", "column_name", blank=True, editable=False, primary_key=True, serialize=False
                ),
            ),
            (
                "batch",
                models.ForeignKey(
                    db_index=False,
                    on_delete=django.db.models.deletion.CASCADE,
                    related_name="reject_counts",
                    to="telemetry.ingestbatch",
                ),
            ),
            ("reason", models.TextField()),
            ("column_name", models.TextField(help_text="empty if the whole row is at fault")),
            ("row_count", models.BigIntegerField()),
        ],
        options={
            "db_table": "ingest_reject_count",
            "constraints": [
                models.CheckConstraint(condition=models.Q(("row_count__gt", 0)), name="ingest_reject_count_some")
            ],
        },
    ),
    migrations.AddField(
        "ingestjob",
        "max_rejected_count",
        models.BigIntegerField(
            blank=True,
            help_text="rows that may be rejected before the rest of the job is parked; null: any",
            null=True,
        ),
    ),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0004_files")]
    operations = [
        migrations.RunSQL(read_sql("0005_rejects"), read_sql("0005_rejects_reverse"), state_operations=STATE),
    ]
