"""`manage.py db_pool_advise`: pool sizes for a load, each with its reason."""

import json
import time
from argparse import ArgumentParser
from collections.abc import Callable
from typing import Any

import redis
from django.core.management.base import CommandError
from django.db import DEFAULT_DB_ALIAS

from poolhouse.arguments import number, whole_number
from poolhouse.conf import options as poolhouse_options
from poolhouse.display.advice import draw_advice, progress_on
from poolhouse.display.console import console_for
from poolhouse.display.reasons import ReasonCommand, message_of
from poolhouse.driver import driver_errors, not_postgresql, postgresql_aliases
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.store import ReportStore, store
from poolhouse.servers.server import ask_as_monitor, capacity
from poolhouse.sizing.fleet import Deployment, Fleet, Room, Transactions, advise_fleet
from poolhouse.sizing.live import Measured, NothingMeasuredError, measure
from poolhouse.sizing.plan import Capacity, plan
from poolhouse.sizing.process import Threads, advise_process
from poolhouse.sizing.queue import Demand, Holds, Load, Target
from poolhouse.sizing.report import Advice

# The limit of the model: a process with more connections in use needs another answer than a pool size.
IN_USE_MOST = 1_000
OR_GIVE_LOAD = "or pass --rate (checkouts per second of one process) and --hold-ms (mean hold time)"
_FROM_ONE, _FROM_ZERO = whole_number(1, 1_000_000), whole_number(0, 1_000_000)


class Command(ReasonCommand):
    """Computes pool sizes for a measured or given load."""

    help = (
        "Compute the pool size of each process and the sizes of PgBouncer, and check whether the fleet fits the "
        "server, from the load that the processes report or from --rate and --hold-ms."
    )
    requires_system_checks: list[str] = []  # it must work when the database does not

    def add_arguments(self, parser: ArgumentParser) -> None:
        """Add the options, in a group for each subject."""
        _add_load(parser)
        _add_fleet(parser)
        output = parser.add_argument_group("output")
        output.add_argument("--plan", action="store_true", help="also plan for 10, 100, 1,000 and 10,000 web processes")
        how = output.add_mutually_exclusive_group()
        how.add_argument("--json", action="store_true", help="print everything as JSON")
        how.add_argument("--env", action="store_true", help="print lines for .env")

    def handle(self, *args: Any, **options: Any) -> None:
        """Measure the load or take it from the options, and print the advice.

        Raises:
            CommandError: the alias is unknown, or the load or the connection limit could not be read.
        """
        alias = options["database"]
        if alias not in postgresql_aliases():
            raise CommandError(f"--database: {not_postgresql(alias)}", returncode=2)
        bears = Capacity(options["pgbouncer_clients"], options["pgbouncer_rate"])
        advice = self._advice(alias, bears, options)
        if options["json"]:
            self.stdout.write(json.dumps(advice.as_document(), indent=2))
        elif options["env"]:
            self.stdout.write("\n".join(advice.env_lines()))
        else:
            console_for(self.stdout, no_color=options["no_color"]).print(draw_advice(advice, bears))

    def _advice(self, alias: str, bears: Capacity, options: dict[str, Any]) -> Advice:
        given_holds = _given_holds(options)
        is_given = options["rate"] is not None and given_holds is not None
        measured = None if is_given else self._measure(alias, options)
        load = _load(options["rate"], given_holds, measured)
        threads = _threads(options["threads"], options["connections_per_thread"], measured)
        target = Target(options["wait_target_ms"] / 1000, options["percentile"] / 100)
        process = advise_process(Demand(load, target, options["burst"]), threads)
        hosts = options["hosts"] or (measured.hosts if measured else 1)
        processes = options["processes"] or (-(-measured.processes // measured.hosts) if measured else 1)
        fleet = Fleet(hosts, processes, options["workers"], options["worker_concurrency"])
        mean_ms = options["transaction_ms"]
        transactions = Transactions(options["transactions"], None if mean_ms is None else mean_ms / 1000)
        deployment = Deployment(fleet, _room(alias, options["max_connections"], options["reserved"]), transactions)
        rows = plan(process, deployment, bears) if options["plan"] else ()
        return Advice(process, advise_fleet(process, deployment), measured, options["server_cores"], tuple(rows))

    def _measure(self, alias: str, options: dict[str, Any]) -> Measured:
        """Read the reports twice, and return the load in between."""
        reports, interval_s = store(), poolhouse_options().PUBLISH_INTERVAL_S
        if reports is None:
            raise CommandError(f"POOLHOUSE['REDIS_URL'] is not set, so processes do not report: set it, {OR_GIVE_LOAD}")
        before = _read(reports)
        over_s = options["over"]
        with progress_on(console_for(self.stderr, no_color=options["no_color"])) as bar:
            task = bar.add_task("measuring the pools", total=over_s)
            end = time.monotonic() + over_s
            while (left_s := end - time.monotonic()) > 0:
                bar.update(task, completed=over_s - left_s)
                time.sleep(min(0.1, left_s))
        try:
            return measure(before, _read(reports), alias=alias, service=options["service"])
        except NothingMeasuredError as nothing:
            raise CommandError(
                f"{nothing}: put load on the service, measure for longer than --over {over_s:g} s (processes report "
                f"every {interval_s:g} s), {OR_GIVE_LOAD}"
            ) from None


def _add_load(parser: ArgumentParser) -> None:
    load = parser.add_argument_group("load of one process (measured where not given)")
    load.add_argument("--rate", type=number(0.001, 1e6), metavar="PER_S", help="checkouts per second")
    load.add_argument("--hold-ms", type=number(0.001, 1e8), metavar="MS", help="mean hold time, in milliseconds")
    shape = load.add_mutually_exclusive_group()
    shape.add_argument(
        "--hold-p95-ms",
        type=number(0.001, 1e9),
        metavar="MS",
        help="p95 of the hold times, in milliseconds; they are assumed to be log-normal",
    )
    shape.add_argument(
        "--hold-cv2",
        type=number(0, 1000),
        metavar="N",
        help="squared coefficient of variation of the hold times, (standard deviation / mean)² (default without "
        "--hold-p95-ms: 1, as in the exponential distribution)",
    )
    load.add_argument("--service", help="service to measure (default: that of the busiest process)")
    load.add_argument(
        "--database", default=DEFAULT_DB_ALIAS, metavar="ALIAS", help="database to advise on (default: %(default)s)"
    )
    _with_default(load, "--over", number(0.1, 3600), 10.0, "seconds to measure")
    target = parser.add_argument_group("target")
    _with_default(target, "--wait-target-ms", number(0.01, 1e6), 10.0, "longest wait for a connection, in milliseconds")
    _with_default(target, "--percentile", number(50, 99.99), 95.0, "percentage of the callers that wait no longer")
    _with_default(target, "--burst", number(1, 100), 1.5, "factor by which the load may rise for a while")


def _add_fleet(parser: ArgumentParser) -> None:
    fleet = parser.add_argument_group("fleet")
    fleet.add_argument("--hosts", type=_FROM_ONE, metavar="N", help="web hosts (default: as measured, else 1)")
    fleet.add_argument(
        "--processes", type=_FROM_ONE, metavar="N", help="web processes on each host (default: as measured, else 1)"
    )
    fleet.add_argument(
        "--threads",
        type=_FROM_ONE,
        metavar="N",
        help="threads of each process, the most requests that it serves at once (default: the most connections that "
        "were in use at once)",
    )
    each = "connections of this pool that a request holds at once, with those of threads that it starts"
    _with_default(fleet, "--connections-per-thread", _FROM_ONE, 1, each)
    _with_default(fleet, "--workers", _FROM_ZERO, 0, "Celery workers on all hosts")
    _with_default(fleet, "--worker-concurrency", _FROM_ONE, 1, "processes of each Celery worker")
    server = parser.add_argument_group("server and PgBouncer")
    server.add_argument(
        "--max-connections", type=_FROM_ONE, metavar="N", help="max_connections (default: read from the server)"
    )
    _with_default(server, "--reserved", _FROM_ZERO, 3, "connections of --max-connections that are reserved")
    server.add_argument(
        "--server-cores", type=_FROM_ONE, metavar="N", help="CPU cores of the server, for the rule of thumb"
    )
    _with_default(
        server, "--transactions", _FROM_ONE, 1, "transactions per checkout; in autocommit each statement is one"
    )
    server.add_argument(
        "--transaction-ms",
        type=number(0.001, 1e8),
        metavar="MS",
        help="mean duration of a transaction, in milliseconds (default: hold time / --transactions)",
    )
    _with_default(server, "--pgbouncer-clients", _FROM_ONE, 5_000, "clients that one PgBouncer process can serve")
    _with_default(
        server, "--pgbouncer-rate", number(1, 1e7), 20_000.0, "transactions/s that one PgBouncer process can serve"
    )


def _with_default(group: Any, name: str, read: Callable[[str], Any], default: float, meaning: str) -> None:
    group.add_argument(name, type=read, default=default, metavar="N", help=f"{meaning} (default: {default:g})")


def _threads(count: int | None, connections_each: int, measured: Measured | None) -> Threads | None:
    """Return the limit of the callers of a process: --threads, or the most that were seen at once."""
    if count is not None:
        return Threads(count, connections_each)
    return Threads(measured.peak, are_known=False) if measured and measured.peak else None


def _given_holds(options: dict[str, Any]) -> Holds | None:
    mean_ms, p95_ms, cv2 = options["hold_ms"], options["hold_p95_ms"], options["hold_cv2"]
    if mean_ms is None:
        if p95_ms is not None or cv2 is not None:
            raise CommandError("--hold-p95-ms and --hold-cv2 require --hold-ms", returncode=2)
        return None
    if p95_ms is None:
        return Holds(mean_ms / 1000, 1.0 if cv2 is None else cv2)
    try:
        return Holds.log_normal(mean_ms / 1000, p95_ms / 1000)
    except ValueError as error:
        raise CommandError(f"--hold-p95-ms: {error}; or pass --hold-cv2 instead", returncode=2) from None


def _load(rate_per_s: float | None, holds: Holds | None, measured: Measured | None) -> Load:
    if rate_per_s is None and measured:
        rate_per_s = measured.load.rate_per_s
    if holds is None and measured:
        holds = measured.load.holds
    assert rate_per_s is not None  # noqa: S101 - it was measured if it was not given
    assert holds is not None  # noqa: S101
    load = Load(rate_per_s, holds)
    if load.in_use > IN_USE_MOST:
        raise CommandError(
            f"{rate_per_s:g}/s × {holds.mean_s * 1000:g} ms is {load.in_use:,.0f} connections in use in one process "
            f"(maximum {IN_USE_MOST:,}): check that --rate is that of one process and --hold-ms is in milliseconds",
            returncode=2,
        )
    return load


def _read(reports: ReportStore) -> list[ProcessReport]:
    try:
        return reports.read_all().live
    except redis.RedisError as error:
        reason = str(error).rstrip(".")
        raise CommandError(
            f"cannot read the reports from Redis: {reason}: check Redis and POOLHOUSE['REDIS_URL'], {OR_GIVE_LOAD}"
        ) from None


def _room(alias: str, max_connections: int | None, reserved: int) -> Room:
    """Return the server's connection limit, from the options or from the server."""
    if max_connections is None:
        try:
            found, _ = ask_as_monitor(alias, capacity)
        except driver_errors(alias) as error:
            raise CommandError(
                f"cannot read max_connections from the server: {message_of(error)}: start it, or pass --max-connections"
            ) from None
        return Room(found.max_connections, found.superuser_reserved + found.reserved)
    if reserved >= max_connections:
        raise CommandError(
            f"--reserved {reserved} must be less than --max-connections {max_connections}",
            returncode=2,
        )
    return Room(max_connections, reserved)
