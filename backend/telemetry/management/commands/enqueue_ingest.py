"""`manage.py enqueue_ingest`: cut files into batches, and enqueue a job that loads them."""

import shlex
from argparse import ArgumentParser
from typing import Any

from django.conf import settings
from django.core.management.base import CommandError
from rich.console import Console

from poolhouse.arguments import whole_number
from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand
from telemetry.arguments import argument, ascii_encoding, escape_character, one_character, timezone
from telemetry.formats import BadInput, Columns, StorageUnavailableError, TextFormat, TimeFormat
from telemetry.formats.times import UNITS_PER_S
from telemetry.inputs import Inputs, open_input
from telemetry.intake import BATCH_ROWS_MAX, EMPTY_CELLS, BrokerUnavailableError, RejectLimit, announce, create_job
from telemetry.models import IngestJob
from telemetry.queries import job_progress, parked_batches
from telemetry.watch import watch_job

MISUSE = 2


class Command(ReasonCommand):
    """Enqueue a job, and with --wait show its progress until it is over."""

    help = (
        "Load CSV, NDJSON, Parquet or Arrow files into the hypertable: one reading for each value cell that is not "
        "empty. Files ending in .gz or .zst are unpacked into the spool."
    )

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options for the columns, the format and the load."""
        _add_columns(parser)
        _add_format(parser)
        _add_loading(parser)

    def handle(self, *args: Any, **options: Any) -> None:
        """Create the job, and wait for it with --wait."""
        console = console_for(self.stdout, no_color=options["no_color"])
        try:
            job = self._create(_columns(options), options, console)
        except (BadInput, ValueError) as error:
            raise CommandError(str(error), returncode=MISUSE) from None
        except BrokerUnavailableError as error:
            raise CommandError(str(error), returncode=1) from None
        except StorageUnavailableError as error:
            raise CommandError(f"{error}; try again later", returncode=1) from None
        for warning in job.warnings:
            console.print(f"WARNING: {warning}")
        if progress := job_progress(job.pk):
            console.print(f"job {job.pk}: {progress.batches} batches, {progress.rows:,} rows enqueued")
        if options["wait"] and not self._wait(job.pk, console):
            self._raise_parked(job.pk)

    def _raise_parked(self, job_id: int) -> None:
        parked = parked_batches(job_id, limit=1)
        first = parked[0]["error"] if parked else "the job was cancelled"
        raise CommandError(f"{first}\nmanage.py ingest_status {job_id} lists the parked batches", returncode=1)

    def _create(self, columns: Columns, options: dict[str, Any], console: Console) -> IngestJob:
        with console.status("cutting into batches"), Inputs() as files:
            for path in options["paths"]:
                files.append(open_input(path, into_spool=options["spool"]))
            job = create_job(
                files,
                columns,
                batch_rows=options["batch_rows"],
                on_conflict=options["on_conflict"],
                reject_limit=options["max_rejects"],
            )
        announce(job.pk)
        return job

    def _wait(self, job_id: int, console: Console) -> bool:
        try:
            return watch_job(job_id, console)
        except KeyboardInterrupt:
            raise CommandError(
                f"stopped waiting; job {job_id} goes on. manage.py ingest_status {job_id} shows its progress",
                returncode=130,
            ) from None


def _add_columns(parser: ArgumentParser) -> None:
    parser.add_argument("paths", nargs="+", metavar="PATH", help="files or URLs, all of the same format")
    parser.add_argument(
        "--time",
        required=True,
        metavar="COLUMN",
        help="column with the time: ISO 8601 with a time zone, unless --timezone or --time-unit is set",
    )
    parser.add_argument(
        "--labels",
        nargs="*",
        default=[],
        metavar="COLUMN",
        help="columns that identify a series, for example host and region",
    )
    parser.add_argument(
        "--values", nargs="+", required=True, metavar="COLUMN", help="columns of numbers; each becomes a metric"
    )
    parser.add_argument(
        "--empty",
        nargs="*",
        default=EMPTY_CELLS,
        metavar="TEXT",
        help=f"texts that mean an empty cell (default: {shlex.join(EMPTY_CELLS)})",
    )
    parser.add_argument(
        "--keep-nan", action="store_true", help="load NaN and infinity as values (default: they are empty cells)"
    )


def _add_format(parser: ArgumentParser) -> None:
    group = parser.add_argument_group("format of the files")
    group.add_argument(
        "--timezone",
        type=argument(timezone),
        metavar="ZONE",
        help="time zone of times that have none, for example Europe/Berlin",
    )
    group.add_argument(
        "--time-unit",
        choices=("iso", *UNITS_PER_S),
        default="iso",
        help="iso: times are ISO 8601 texts; otherwise they are integers, in this unit since 1970 (default: iso)",
    )
    group.add_argument(
        "--delimiter",
        type=argument(one_character),
        default=",",
        metavar="C",
        help="delimiter between the cells of a CSV; \\t is a tab (default: ,)",
    )
    group.add_argument(
        "--decimal", choices=(".", ","), default=".", help="decimal mark in the numbers of a CSV (default: .)"
    )
    group.add_argument(
        "--escape",
        type=argument(escape_character),
        metavar="C",
        help="escape character of a CSV, for example \\ before a quote (default: none)",
    )
    group.add_argument(
        "--encoding",
        type=argument(ascii_encoding),
        default="utf-8",
        metavar="NAME",
        help="encoding of a CSV, for example latin-1 (default: utf-8)",
    )


def _add_loading(parser: ArgumentParser) -> None:
    parser.add_argument(
        "--batch-rows",
        type=whole_number(1, BATCH_ROWS_MAX),
        default=settings.INGEST_BATCH_ROWS,
        metavar="N",
        help="input rows per batch (default: %(default)s)",
    )
    parser.add_argument(
        "--on-conflict",
        choices=IngestJob.OnConflict.values,
        default=IngestJob.OnConflict.IGNORE.value,
        help="what to do with readings that exist already; of several in one batch, the first counts for ignore and "
        "the last for update (default: %(default)s)",
    )
    parser.add_argument(
        "--max-rejects",
        type=argument(RejectLimit.of),
        metavar="N|P%",
        help="park the job if more than N rows, or P percent of its rows, cannot be read (default: no limit)",
    )
    parser.add_argument(
        "--spool", action="store_true", help="copy the files into the spool, where workers on other machines can read"
    )
    parser.add_argument(
        "--wait", action="store_true", help="show progress until the job is over; exit with 1 if a batch is parked"
    )


def _columns(options: dict[str, Any]) -> Columns:
    return Columns(
        options["time"],
        tuple(options["labels"]),
        tuple(options["values"]),
        tuple(options["empty"]),
        TimeFormat(options["time_unit"], options["timezone"] or ""),
        TextFormat(options["delimiter"], options["decimal"], options["encoding"], options["escape"] or ""),
        options["keep_nan"],
    )
