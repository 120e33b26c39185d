"""The table of the tokens that created jobs."""

import django.db.models.deletion
from django.db import migrations, models


class Migration(migrations.Migration):
    """Create the table and fill it from uploads with a key; jobs of other uploads stay without a token."""

    dependencies = [
        ("api", "0001_initial"),
        ("telemetry", "0005_rejects"),
    ]

    operations = [
        migrations.CreateModel(
            name="TokenJob",
            fields=[
                (
                    "job",
                    models.OneToOneField(
                        on_delete=django.db.models.deletion.CASCADE,
                        primary_key=True,
                        related_name="token_job",
                        serialize=False,
                        to="telemetry.ingestjob",
                    ),
                ),
                (
                    "token",
                    models.ForeignKey(
                        on_delete=django.db.models.deletion.CASCADE, related_name="jobs", to="api.apitoken"
                    ),
                ),
            ],
        ),
        migrations.RunSQL(
            """
            INSERT INTO api_tokenjob (job_id, token_id)
            SELECT job_id, min(token_id) FROM api_keyedupload GROUP BY job_id
            """,
            migrations.RunSQL.noop,
        ),
    ]
