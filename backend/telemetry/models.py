"""Django's models of the tables in telemetry/sql; the SQL defines the tables, and a test compares the two."""

from django.contrib.postgres.fields import ArrayField
from django.db import models


class Series(models.Model):
    """A time series: a metric and labels, for example host and region."""

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
    """A value of a series at a time, in the hypertable; series and time are the key."""

    pk = models.CompositePrimaryKey("series", "time")
    time = models.DateTimeField()
    series = models.ForeignKey(Series, on_delete=models.DO_NOTHING, db_constraint=False, db_index=False)
    value = models.FloatField()

    class Meta:
        db_table = "reading"


class IngestJob(models.Model):
    """A request to load files, with how their columns are read."""

    class OnConflict(models.TextChoices):
        """What to do with a reading if its series already has one at this time."""

        IGNORE = "ignore"
        UPDATE = "update"
        ERROR = "error"

    format = models.TextField()
    time_column = models.TextField()
    label_columns = ArrayField(models.TextField())
    value_columns = ArrayField(models.TextField())
    null_values = ArrayField(models.TextField())
    options = models.JSONField(default=dict, help_text="format options of the files: times, text, keep_nan")
    on_conflict = models.TextField(choices=OnConflict.choices, default=OnConflict.IGNORE)
    max_rejected_count = models.BigIntegerField(
        null=True, blank=True, help_text="rows that may be rejected before the rest of the job is parked; null: any"
    )
    warnings = ArrayField(models.TextField(), default=list, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    unsent_since = models.DateTimeField(
        null=True, blank=True, help_text="time of the last send while batches were never sent; null: all were sent"
    )

    class Meta:
        db_table = "ingest_job"
        indexes = [
            models.Index(
                fields=["unsent_since"], condition=models.Q(unsent_since__isnull=False), name="ingest_job_unsent"
            )
        ]

    def __str__(self) -> str:
        return f"job {self.pk}"


class IngestFile(models.Model):
    """A file of a job, with the size and time of change that it had when it was cut."""

    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE, related_name="files", db_index=False)
    name = models.TextField(help_text="name that its sender uses")
    location = models.TextField(help_text="where workers read it: a path, a URL, or a name in the spool")
    size_bytes = models.BigIntegerField()
    mtime_ns = models.BigIntegerField(help_text="time of its last change, in nanoseconds since 1970")

    class Meta:
        db_table = "ingest_file"
        constraints = [models.UniqueConstraint(fields=["job", "id"], name="ingest_file_of_job")]
        indexes = [models.Index(fields=["location"], name="ingest_file_location")]

    def __str__(self) -> str:
        return self.name


class IngestBatch(models.Model):
    """A slice of a file that is loaded in one transaction, or in several if it touches many chunks, and its result."""

    class State(models.TextChoices):
        """A batch is queued until it is done, parked or cancelled."""

        QUEUED = "queued"
        DONE = "done"
        PARKED = "parked"
        CANCELLED = "cancelled"

    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE, related_name="batches")
    file = models.ForeignKey(IngestFile, on_delete=models.CASCADE, related_name="batches", db_index=False)
    slice = models.JSONField(help_text="position in the file, in a form that depends on the file's format")
    row_count = models.BigIntegerField(help_text="input rows")
    state = models.TextField(choices=State.choices, default=State.QUEUED)
    attempts = models.IntegerField(
        default=0, help_text="attempts to load it, without those that were interrupted for a temporary reason"
    )
    cell_count = models.BigIntegerField(default=0, help_text="value cells of the rows that could be read")
    inserted_count = models.BigIntegerField(default=0, help_text="readings that were new in the hypertable")
    updated_count = models.BigIntegerField(default=0, help_text="readings whose value was replaced")
    skipped_count = models.BigIntegerField(
        default=0, help_text="readings that existed already, or occur more than once in the input"
    )
    rounded_count = models.BigIntegerField(
        default=0, help_text="readings whose time equals another's after rounding to microseconds"
    )
    empty_count = models.BigIntegerField(default=0, help_text="cells without a value")
    rejected_count = models.BigIntegerField(default=0, help_text="input rows that could not be read")
    loaded_until_us = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="readings before this time, in microseconds since 1970, are loaded; null: loaded at once",
    )
    chunk_limit = models.IntegerField(
        null=True, blank=True, help_text="chunks per transaction, set after the server ran out of locks; null: default"
    )
    error = models.TextField(default="", blank=True)
    enqueued_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="time of the next attempt")
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="time of the first of the current interruptions; null: none"
    )
    sent_at = models.DateTimeField(null=True, blank=True, help_text="time when its message was last sent; null: never")
    finished_at = models.DateTimeField(null=True, blank=True)

    class Meta:
        db_table = "ingest_batch"
        verbose_name_plural = "ingest batches"
        indexes = [
            models.Index(fields=["due_at"], condition=models.Q(state="queued"), name="ingest_batch_unfinished"),
            models.Index(
                fields=["job", "id"], condition=models.Q(state="queued", sent_at=None), name="ingest_batch_unsent"
            ),
            models.Index(
                fields=["job"], condition=models.Q(sent_at__isnull=False, state="queued"), name="ingest_batch_sent"
            ),
            models.Index(fields=["finished_at"], name="ingest_batch_finished"),
            models.Index(fields=["file"], name="ingest_batch_of_file"),
        ]

    def __str__(self) -> str:
        return f"batch {self.pk} of job {self.job_id}"


class IngestRejectCount(models.Model):
    """The number of rows of a batch that were rejected for a reason; the rows themselves are in a file in the spool."""

    pk = models.CompositePrimaryKey("batch", "reason", "column_name")
    batch = models.ForeignKey(IngestBatch, on_delete=models.CASCADE, related_name="reject_counts", db_index=False)
    reason = models.TextField()
    column_name = models.TextField(help_text="empty if the whole row is at fault")
    row_count = models.BigIntegerField()

    class Meta:
        db_table = "ingest_reject_count"
        constraints = [models.CheckConstraint(condition=models.Q(row_count__gt=0), name="ingest_reject_count_some")]

    def __str__(self) -> str:
        return f"{self.row_count} rows: {self.reason}"
