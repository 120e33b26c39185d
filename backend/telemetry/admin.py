"""Django's admin, read-only, because only the loader may change the ledger.

A page runs a fixed number of queries, however many rows there are; related rows are on a page of their own.
"""

from functools import cached_property
from typing import Any

from django.contrib import admin
from django.contrib.admin.views.main import ChangeList
from django.core.paginator import Paginator
from django.db.models import Count, Exists, OuterRef, QuerySet
from django.http import HttpRequest
from django.urls import reverse
from django.utils.html import format_html, format_html_join
from django.utils.safestring import SafeString

from telemetry.job_states import JOB_STATES, jobs_in_state
from telemetry.models import IngestBatch, IngestFile, IngestJob, Series
from telemetry.queries import progress_of

COUNTS = (
    "row_count",
    "rejected_count",
    "inserted_count",
    "updated_count",
    "skipped_count",
    "rounded_count",
    "empty_count",
)
ROWS_MAX = 10_000
"""that a list counts and divides into pages; the others are found by search or filter"""
PAGE_ROWS = 50


class BoundedPaginator(Paginator):
    """Pages of the first ROWS_MAX rows, because counting all rows of a large table would take too long."""

    @cached_property
    def count(self) -> int:
        """The number of rows, at most ROWS_MAX."""
        rows: Any = self.object_list
        return int(rows[:ROWS_MAX].count())


class ReadOnlyAdmin(admin.ModelAdmin):
    """Pages without add, change and delete, whatever permissions the user has."""

    paginator = BoundedPaginator
    show_full_result_count = False
    list_per_page = PAGE_ROWS
    list_max_show_all = PAGE_ROWS

    def has_add_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_change_permission(self, *_: Any) -> bool:
        """Return False."""
        return False

    def has_delete_permission(self, *_: Any) -> bool:
        """Return False."""
        return False


@admin.register(Series)
class SeriesAdmin(ReadOnlyAdmin):
    """Series, newest first."""

    list_display = ("id", "metric", "labels")
    search_fields = ("metric__startswith",)
    search_help_text = "Search for the beginning of a metric's name."
    ordering = ("-id",)


class JobList(ChangeList):
    """A page of jobs, with the progress of all of them from one query."""

    def get_results(self, request: HttpRequest) -> None:
        """Read the jobs of the page, then their progress."""
        super().get_results(request)
        progress = {each.job_id: each for each in progress_of([job.pk for job in self.result_list])}
        for job in self.result_list:
            job.progress = progress.get(job.pk)


class StateFilter(admin.SimpleListFilter):
    """A filter by a job's state, which follows from the states of its batches."""

    title, parameter_name = "state", "state"

    def lookups(self, *_: Any) -> list[tuple[str, str]]:
        """Return every state as a choice."""
        return [(state, state) for state in JOB_STATES]

    def queryset(self, request: HttpRequest, queryset: QuerySet[IngestJob]) -> QuerySet[IngestJob]:
        """Return the jobs in the chosen state."""
        state = self.value()
        return jobs_in_state(state, queryset) if state in JOB_STATES else queryset


@admin.register(IngestJob)
class IngestJobAdmin(ReadOnlyAdmin):
    """Jobs, newest first."""

    list_display = ("id", "created_at", "state", "batches_over", "format", "time_column", "value_columns")
    list_filter = (StateFilter, "created_at", "on_conflict")
    search_fields = ("id",)
    search_help_text = "Search for a job's id, or for a part of a file's name."
    ordering = ("-id",)
    readonly_fields = ("batches", "files")

    def get_changelist(self, *_: Any, **__: Any) -> type[ChangeList]:
        """Return the list that reads progress with the page."""
        return JobList

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IngestJob], search_term: str
    ) -> tuple[QuerySet[IngestJob], bool]:
        """Return the job with this id, or the jobs with a file of this name."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if term.isdecimal():
            return queryset.filter(pk=int(term)), False
        return queryset.filter(Exists(IngestFile.objects.filter(job=OuterRef("pk"), name__contains=term))), False

    def state(self, job: Any) -> str:
        """Return the state, or an empty text for a job that was just deleted."""
        return job.progress.state if job.progress else ""

    @admin.display(description="batches")
    def batches_over(self, job: Any) -> str:
        """Return how many of the job's batches are done, parked or cancelled."""
        if job.progress is None:
            return ""
        return f"{job.progress.done + job.progress.parked + job.progress.cancelled:,} of {job.progress.batches:,}"

    def batches(self, job: IngestJob) -> SafeString:
        """Return links to the job's batches, one for each state."""
        states = job.batches.order_by("state").values_list("state").annotate(Count("pk"))
        page = reverse("admin:telemetry_ingestbatch_changelist")
        links = ((page, job.pk, state, count, state) for state, count in states)
        return format_html_join(", ", '<a href="{}?job__id__exact={}&state__exact={}">{} {}</a>', links)

    def files(self, job: IngestJob) -> SafeString:
        """Return a link to the job's files."""
        page = reverse("admin:telemetry_ingestfile_changelist")
        return format_html('<a href="{}?job__id__exact={}">{}</a>', page, job.pk, job.files.count())


@admin.register(IngestFile)
class IngestFileAdmin(ReadOnlyAdmin):
    """Files, newest first."""

    list_display = ("id", "job", "name", "location", "size_bytes")
    list_select_related = ("job",)
    search_fields = ("name__startswith",)
    search_help_text = "Search for the beginning of a file's name."
    ordering = ("-id",)


@admin.register(IngestBatch)
class IngestBatchAdmin(ReadOnlyAdmin):
    """Batches, newest first."""

    list_display = ("id", "job", "file", "state", "attempts", *COUNTS, "error")
    list_filter = ("state",)
    search_fields = ("id",)
    search_help_text = "Search for the id of a job or of a batch."
    ordering = ("-id",)
    list_select_related = ("job", "file")

    def get_search_results(
        self, request: HttpRequest, queryset: QuerySet[IngestBatch], search_term: str
    ) -> tuple[QuerySet[IngestBatch], bool]:
        """Return the batches of the job with this id, and the batch with this id."""
        term = search_term.strip()
        if not term:
            return queryset, False
        if not term.isdecimal():
            return queryset.none(), False
        return queryset.filter(job_id=int(term)) | queryset.filter(pk=int(term)), False
