"""A look as Prometheus' families of metrics."""

from collections.abc import Iterator

from prometheus_client.metrics_core import Metric

from poolhouse.metrics.fleet import of_pools, of_processes, of_totals
from poolhouse.metrics.look import Look
from poolhouse.metrics.samples import gauge
from poolhouse.metrics.servers import of_pgbouncer, of_server


def families_of(look: Look) -> Iterator[Metric]:
    """Give everything that Prometheus is told; of a source that did not answer, that it did not."""
    yield gauge(
        "poolhouse_source_up",
        "Whether the source answered: the processes' reports, the database server, PgBouncer",
        ("source",),
        (((source,), is_up) for source, is_up in look.is_up.items()),
    )
    if look.fleet:
        yield from of_processes(look.fleet.reports, look.taken_at)
        yield from of_pools(look.fleet.reports)
        yield from of_totals(look.fleet)
    if look.room:
        yield from of_server(look.room, look)
    if look.pgbouncer:
        yield from of_pgbouncer(look.pgbouncer)
