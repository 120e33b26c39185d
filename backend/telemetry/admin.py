"""Django's admin for series, jobs and batches; the hypertable itself is asked through queries."""

from django.contrib import admin

from telemetry.models import IngestBatch, IngestJob, IngestReject, Series


@admin.register(Series)
class SeriesAdmin(admin.ModelAdmin):
    """Series by metric."""

    list_display = ("id", "metric", "labels")
    list_filter = ("metric",)
    search_fields = ("metric",)
    show_full_result_count = False


class BatchInline(admin.TabularInline):
    """A job's batches, to read."""

    model = IngestBatch
    fields = ("path", "state", "row_count", "inserted_count", "skipped_count", "rejected_count", "error")
    readonly_fields = fields
    extra = 0
    can_delete = False
    show_change_link = True


@admin.register(IngestJob)
class IngestJobAdmin(admin.ModelAdmin):
    """Jobs, newest first."""

    list_display = ("id", "created_at", "format", "time_column", "label_columns", "value_columns")
    ordering = ("-id",)
    inlines = (BatchInline,)


class RejectInline(admin.TabularInline):
    """A batch's rejected rows, to read."""

    model = IngestReject
    fields = ("line", "column_name", "reason", "raw")
    readonly_fields = fields
    extra = 0
    can_delete = False


@admin.register(IngestBatch)
class IngestBatchAdmin(admin.ModelAdmin):
    """Batches by state."""

    list_display = ("id", "job", "path", "state", "row_count", "inserted_count", "skipped_count", "rejected_count")
    list_filter = ("state",)
    ordering = ("-id",)
    list_select_related = ("job",)
    inlines = (RejectInline,)
