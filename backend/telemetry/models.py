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
    max_rejected_count = models.BigIntegerField(
        null=True, blank=True, help_text="rows that may be rejected before the rest of the job is parked; none: all"
    )
    warnings = ArrayField(models.TextField(), default=list, blank=True)
    cancelled_at = models.DateTimeField(null=True, blank=True)
    created_at = models.DateTimeField()
    unsent_since = models.DateTimeField(
        null=True, blank=True, help_text="while there are batches that were never sent: when some were sent last"
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
    """A file of a job, as it was when it was cut."""

    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE, related_name="files", db_index=False)
    name = models.TextField(help_text="as its sender knows it")
    location = models.TextField(help_text="where workers read it: a path, a URL, or a name in the spool")
    size_bytes = models.BigIntegerField()
    mtime_ns = models.BigIntegerField(help_text="when it was changed last, in nanoseconds since 1970")

    class Meta:
        db_table = "ingest_file"
        constraints = [models.UniqueConstraint(fields=["job", "id"], name="ingest_file_of_job")]
        indexes = [models.Index(fields=["location"], name="ingest_file_location")]

    def __str__(self) -> str:
        return self.name


class IngestBatch(models.Model):
    """A part of a file, and what became of it."""

    class State(models.TextChoices):
        """A batch is queued until it is loaded, parked or cancelled."""

        QUEUED = "queued"
        DONE = "done"
        PARKED = "parked"
        CANCELLED = "cancelled"

    job = models.ForeignKey(IngestJob, on_delete=models.CASCADE, related_name="batches")
    file = models.ForeignKey(IngestFile, on_delete=models.CASCADE, related_name="batches", db_index=False)
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
    rounded_count = models.BigIntegerField(
        default=0, help_text="readings whose time equals another's after rounding to microseconds"
    )
    empty_count = models.BigIntegerField(default=0, help_text="cells without a value")
    rejected_count = models.BigIntegerField(default=0, help_text="input rows that could not be read")
    loaded_until_us = models.BigIntegerField(
        null=True,
        blank=True,
        help_text="readings before it are loaded, in microseconds since 1970; none: the batch is loaded at once",
    )
    chunk_limit = models.IntegerField(
        null=True, blank=True, help_text="chunks in a transaction, after the server ran out of locks; none: as usual"
    )
    error = models.TextField(default="", blank=True)
    enqueued_at = models.DateTimeField()
    due_at = models.DateTimeField(help_text="when the next attempt is due")
    failing_since = models.DateTimeField(
        null=True, blank=True, help_text="since when its attempts have failed for reasons that pass"
    )
    sent_at = models.DateTimeField(null=True, blank=True, help_text="when its message was sent last; null: never")
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
    """How many rows of a batch could not be read for a reason; the rows themselves are in a file in the spool."""

    pk = models.CompositePrimaryKey("batch", "reason", "column_name")
    batch = models.ForeignKey(IngestBatch, on_delete=models.CASCADE, related_name="reject_counts", db_index=False)
    reason = models.TextField()
    column_name = models.TextField(help_text="empty if the fault is the row's")
    row_count = models.BigIntegerField()

    class Meta:
        db_table = "ingest_reject_count"
        constraints = [models.CheckConstraint(condition=models.Q(row_count__gt=0), name="ingest_reject_count_some")]

    def __str__(self) -> str:
        return f"{self.row_count} rows: {self.reason}"
