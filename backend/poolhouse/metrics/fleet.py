"""Metric families of the processes' reports. Names that begin with db_client are OpenTelemetry's."""

from collections import Counter
from collections.abc import Iterator
from dataclasses import replace

from prometheus_client.metrics_core import GaugeMetricFamily, HistogramMetricFamily, Metric

from poolhouse.conf import options
from poolhouse.metrics import conventions
from poolhouse.metrics.buckets import cumulative
from poolhouse.metrics.conventions import as_prometheus
from poolhouse.metrics.samples import counter, gauge
from poolhouse.overview.status import Status
from poolhouse.reports.report import ProcessReport
from poolhouse.reports.totals import Totals

PROCESS = ("service", "host", "pid")
POOL = (*PROCESS, "alias")
SERVICE = ("service", "alias")
COUNTED = {
    "lent": "Connections checked out",
    "connects": "Connections opened",
    "connect_errors": "Attempts to open a connection that failed",
    "recycled": "Connections closed because of their age",
    "invalidated": "Connections closed because they were dead or broken by an error",
    "resets": "Sessions reset because their holder left session state behind",
}
"""the counters of `poolhouse.measures.meter.COUNTERS` for which OpenTelemetry has no name"""


def of_processes(status: Status) -> Iterator[Metric]:
    """Yield the number of reporting and of expected processes, and the age of each report."""
    reports, now = status.processes, status.taken_at
    expected = {service: processes for service, (processes, _) in options().FLEET.items()}
    found = Counter(report.service for report in reports)
    yield gauge(
        "poolhouse_processes",
        "Processes that are reporting",
        ("service",),
        (((service,), found[service]) for service in sorted({*expected, *found})),
    )
    yield gauge(
        "poolhouse_expected_processes",
        "Processes that POOLHOUSE['FLEET'] expects",
        ("service",),
        (((service,), processes) for service, processes in expected.items()),
    )
    yield GaugeMetricFamily(
        "poolhouse_reports_of_other_versions",
        "Reports in the format of another version of Poolhouse, which are ignored",
        status.of_other_versions,
    )
    yield gauge(
        "poolhouse_report_age_seconds",
        "Age of the last report of the process",
        PROCESS,
        ((_process(report), max(0.0, now - report.reported_at)) for report in _with_unique_hosts(reports)),
    )


def of_pools(reports: list[ProcessReport]) -> Iterator[Metric]:
    """Yield the current state of each pool of each process."""
    pools = [((*_process(report), pool.alias), pool) for report in _with_unique_hosts(reports) for pool in report.pools]
    yield gauge(
        as_prometheus(conventions.COUNT),
        conventions.COUNT_TEXT,
        (*POOL, "state"),
        (((*of, state), count) for of, pool in pools for state, count in (("idle", pool.idle), ("used", pool.in_use))),
    )
    for number in conventions.LIMITS:
        yield gauge(as_prometheus(number.name), number.text, POOL, ((of, number.read(pool)) for of, pool in pools))
    yield gauge(
        "poolhouse_leak_suspects",
        "Connections held for longer than LEAK_THRESHOLD_S, by engines that check it",
        POOL,
        ((of, len(pool.suspects)) for of, pool in pools if pool.looks_for_leaks),
    )


def of_totals(by_service: dict[str, dict[str, Totals]]) -> Iterator[Metric]:
    """Yield the totals of each service, without host and pid, so that they outlive a process."""
    totals = [((service, alias), one) for service, found in by_service.items() for alias, one in found.items()]
    timeouts = {"timeouts": (as_prometheus(conventions.TIMEOUTS.name), conventions.TIMEOUTS.text)}
    ours = {what: (f"poolhouse_pool_{what}", text) for what, text in COUNTED.items()}
    for what, (name, text) in (timeouts | ours).items():
        yield counter(name, text, SERVICE, ((of, one.counts.get(what)) for of, one in totals))
    for what, (name, text) in conventions.DURATIONS.items():
        family = HistogramMetricFamily(as_prometheus(name), text, labels=SERVICE, unit="seconds")
        for of, one in totals:
            if what in one.durations:
                family.add_metric(of, cumulative(one.durations[what]), one.durations[what].total_s)
        yield family


def _with_unique_hosts(reports: list[ProcessReport]) -> list[ProcessReport]:
    """Make the hosts of processes with the same name unique: Prometheus rejects duplicate series."""
    count = Counter(_process(report) for report in reports)
    return [
        replace(report, host=f"{report.host}/{report.run}") if count[_process(report)] > 1 else report
        for report in reports
    ]


def _process(report: ProcessReport) -> tuple[str, str, str]:
    return report.service, report.host, str(report.pid)
