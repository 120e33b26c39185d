"""The tables of telemetry/sql, as Django sees them; the SQL is the source, and a test compares the two."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Series(models.Model):
    """What is measured: a metric, and the labels that tell one source from another."""

    id = models.AutoField(primary_key=True)
    metric = models.TextField()
    labels = models.JSONField()

    class Meta:
        db_table = "series"
        verbose_name_plural = "series"
        constraints = [models.UniqueConstraint(fields=["metric", "labels"], name="series_metric_labels_unique")]

    def __str__(self) -> str:
        labels = ",".join(f"{name}={value}" for name, value in sorted(self.labels.items()))
        return f"{self.metric}{{{labels}}}"


class Reading(models.Model):
    """One measurement, in the hypertable; its key is its series and its time."""

    pk = models.CompositePrimaryKey("series", "time")
    time = models.DateTimeField()
    series = models.ForeignKey(Series, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    value = models.FloatField()

    class Meta:
        db_table = "reading"


class IngestJob(models.Model):
    """A request to load some files: how their columns are to be read."""

    class OnConflict(models.TextChoices):
        """What is to happen to a reading of a series and a time that have one already."""

        IGNORE = "ignore"
        UPDATE = "update"
        ERROR = "error"

    format = models.TextField()
    time_column = models.TextField()
    label_columns = ArrayField(models.TextField())
    value_columns = ArrayField(models.TextField())
    null_values = ArrayField(models.TextField())
    options = models.JSONField(default=dict, help_text="how the files are written, where not as usual")
    on_conflict = models.TextField(choices=OnConflict.choices, default=OnConflict.IGNORE)
    created_at = models.DateTimeField()

    class Meta:
        db_table = "ingest_job"

    def __str__(self) -> str:
        return f"job {self.pk}"


class IngestBatch(models.Model):
    """A part of a file, and what became of it."""

    class State(models.TextChoices):
        """A batch is queued until it is loaded, has failed for good, or is not wanted any more."""

        QUEUED = "queued"
        DONE = "done"
        PARKED = "parked"
        CANCELLED = "cancelled"

    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE, related_name="batches")
    path = models.TextField()
    slice = models.JSONField(help_text="where in the file it lies; the file's format says how to read this")
    row_count = models.BigIntegerField(help_text="input rows")
    state = models.TextField(choices=State.choices, default=State.QUEUED)
    attempts = models.IntegerField(
        default=0, help_text="how often loading was begun and not stopped by the server's absence"
    )
    cell_count = models.BigIntegerField(default=0, help_text="value cells of the rows that could be read")
    inserted_count = models.BigIntegerField(default=0, help_text="readings that are new in the hypertable")
    updated_count = models.BigIntegerField(default=0, help_text="readings whose value was replaced")
    skipped_count = models.BigIntegerField(default=0, help_text="readings that were there already, or came twice")
    empty_count = models.BigIntegerField(default=0, help_text="cells without a value")
    rejected_count = models.BigIntegerField(default=0, help_text="input rows that could not be read")
    error = models.TextField(default="", blank=True)
    enqueued_at = models.DateTimeField()
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "ingest_batch"
        verbose_name_plural = "ingest batches"
        indexes = [
            models.Index(fields=["enqueued_at"], condition=models.Q(state="queued"), name="ingest_batch_unfinished")
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of job {self.job_id}"


class IngestReject(models.Model):
    """An input row that could not be read."""

    batch = models.ForeignKey(IngestBatch, on_delete=models.CASCADE, related_name="rejects")
    line = models.BigIntegerField(help_text="in the file, counted from 1; in Parquet, the row")
    column_name = models.TextField()
    reason = models.TextField()
    raw = models.TextField(help_text="the row as it stands in the file")

    class Meta:
        db_table = "ingest_reject"

    def __str__(self) -> str:
        return f"line {self.line}, column {self.column_name}: {self.reason}"
