"""`/metrics` for Prometheus: the whole fleet, from whichever process answers."""

import os
from collections.abc import Callable, Iterable
from dataclasses import dataclass

from django.http import HttpRequest, HttpResponse
from django.views.decorators.csrf import csrf_exempt
from django.views.decorators.http import require_safe
from prometheus_client.exposition import choose_encoder
from prometheus_client.metrics_core import Metric
from prometheus_client.registry import Collector

from poolhouse.conf import options
from poolhouse.metrics.access import may_read
from poolhouse.metrics.families import families_of
from poolhouse.metrics.snapshot import Recent, take_snapshot


@dataclass(frozen=True)
class _Collected:
    """The object with metric families that an encoder expects."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


REFUSAL = 'The header "Authorization: Bearer TOKEN" with POOLHOUSE["METRICS_TOKEN"] is required.\n'

recent: Recent[list[Metric]] = Recent(lambda: [*families_of(take_snapshot())])
os.register_at_fork(after_in_child=recent.forget_parent)


class _EveryAlias(set[str]):
    """A set of all aliases, present and future, for which ATOMIC_REQUESTS opens no transaction."""

    def __contains__(self, alias: object) -> bool:
        return True


@csrf_exempt  # so that a POST is answered with 405 instead of a CSRF error
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Return the metrics in the requested format, with status 200 even if a source is down (poolhouse_source_up 0).

    Without the required POOLHOUSE["METRICS_TOKEN"] the status is 401. The view uses no connection of a pool, whatever
    ATOMIC_REQUESTS says: it answers when a pool is exhausted and when the server is down.
    """
    if not may_read(request):
        return HttpResponse(
            REFUSAL, status=401, content_type="text/plain; charset=utf-8", headers={"WWW-Authenticate": "Bearer"}
        )
    encode, content_type = _encoder(request.headers.get("Accept", ""))
    families = recent.get(options().METRICS_MAX_AGE_S)
    return HttpResponse(encode(_Collected(families)), content_type=content_type)


# What `transaction.non_atomic_requests` sets on a view, but that takes one existing alias at a time.
metrics._non_atomic_requests = _EveryAlias()  # type: ignore[attr-defined]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # the Accept header names an invalid version
        return choose_encoder("")
