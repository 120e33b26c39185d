"""Django's admin for series, jobs and batches, to read: the ledger must say what the loader did, and nothing else."""

from typing import Any

from django.contrib import admin

from telemetry.models import IngestBatch, IngestFile, IngestJob, Series

COUNTS = (
    "row_count",
    "rejected_count",
    "inserted_count",
    "updated_count",
    "skipped_count",
    "rounded_count",
    "empty_count",
)


class ReadOnly:
    """Neither add, change nor delete, whatever the user may."""

    def has_add_permission(self, *_: Any) -> bool:
        """Refuse."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Refuse."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Refuse."""
        return False


@admin.register(Series)
class SeriesAdmin(ReadOnly, admin.ModelAdmin):
    """Series by metric."""

    list_display = ("id", "metric", "labels")
    list_filter = ("metric",)
    search_fields = ("metric",)
    show_full_result_count = False


class BatchInline(ReadOnly, admin.TabularInline):
    """A job's batches, to read."""

    model = IngestBatch
    fields = ("file", "state", "attempts", *COUNTS, "error")
    extra = 0
    show_change_link = True


class FileInline(ReadOnly, admin.TabularInline):
    """A job's files, to read."""

    model = IngestFile
    fields = ("name", "location", "size_bytes")
    extra = 0


@admin.register(IngestJob)
class IngestJobAdmin(ReadOnly, admin.ModelAdmin):
    """Jobs, newest first."""

    list_display = ("id", "created_at", "format", "time_column", "label_columns", "value_columns")
    ordering = ("-id",)
    inlines = (FileInline, BatchInline)


@admin.register(IngestBatch)
class IngestBatchAdmin(ReadOnly, admin.ModelAdmin):
    """Batches by state."""

    list_display = ("id", "job", "file", "state", "attempts", *COUNTS)
    list_filter = ("state",)
    ordering = ("-id",)
    list_select_related = ("job", "file")
