"""The column of telemetry/sql/0003_reading_options.sql."""

from django.db import migrations, models

from telemetry.sql import read_sql


class Migration(migrations.Migration):
    """Run the SQL."""

    dependencies = [("telemetry", "0002_ledger")]
    operations = [
        migrations.RunSQL(
            read_sql("0003_reading_options"),
            read_sql("0003_reading_options_reverse"),
            state_operations=[
                migrations.AddField(
                    "ingestjob",
                    "options",
                    models.JSONField(default=dict, help_text="format options of the files: times, text, keep_nan"),
                )
            ],
        ),
    ]
