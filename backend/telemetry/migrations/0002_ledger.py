"""The ledger of telemetry/sql/0002_ledger.sql; the state operations describe it to Django."""

from django.db import migrations, models

from telemetry.sql import read_sql

ON_CONFLICT = [("ignore", "Ignore"), ("update", "Update"), ("error", "Error")]
STATES = [("queued", "Queued"), ("done", "Done"), ("parked", "Parked"), ("cancelled", "Cancelled")]

COLUMNS = [
    migrations.AddField("ingestjob", "on_conflict", models.TextField(choices=ON_CONFLICT, default="ignore")),
    migrations.AlterField("ingestbatch", "state", models.TextField(choices=STATES, default="queued")),
    migrations.AddField(
        "ingestbatch",
        "attempts",
        models.IntegerField(
            default=0, help_text="attempts to load it, without those that were interrupted for a temporary reason"
        ),
    ),
    migrations.AddField(
        "ingestbatch",
        "cell_count",
        models.BigIntegerField(default=0, help_text="value cells of the rows that could be read"),
    ),
    migrations.AddField(
        "ingestbatch",
        "updated_count",
        models.BigIntegerField(default=0, help_text="readings whose value was replaced"),
    ),
    migrations.AddField(
        "ingestbatch", "empty_count", models.BigIntegerField(default=0, help_text="cells without a value")
    ),
    migrations.AlterField(
        "ingestbatch",
        "skipped_count",
        models.BigIntegerField(
            default=0, help_text="readings that existed already, or occur more than once in the input"
        ),
    ),
]


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0001_initial")]
    operations = [
        migrations.RunSQL(read_sql("0002_ledger"), read_sql("0002_ledger_reverse"), state_operations=COLUMNS),
    ]
