"""All metric families for Prometheus."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from poolhouse.metrics.fleet import of_pools, of_processes, of_totals
from poolhouse.metrics.samples import gauge
from poolhouse.metrics.servers import of_pgbouncer, of_servers
from poolhouse.metrics.snapshot import Snapshot


def families_of(look: Snapshot) -> Iterator[Metric]:
    """Yield the metric families; of a source that did not answer, only that it is down."""
    yield gauge(
        "poolhouse_source_up",
        "1 if the source answered, else 0; sources: process reports, database servers, PgBouncer",
        ("source", "server"),
        look.is_up.items(),
    )
    status = look.status
    if status.knows_processes:
        yield from of_processes(status)
        yield from of_pools(status.processes)
        yield from of_totals(look.totals)
    if status.servers:
        yield from of_servers(status)
    if status.pgbouncer:
        yield from of_pgbouncer(status.pgbouncer)
