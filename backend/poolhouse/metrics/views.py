"""`/metrics`: what Prometheus scrapes, of the whole fleet, from whichever process answers."""

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
from poolhouse.metrics.look import Recent, take_look


@dataclass(frozen=True)
class _Collected:
    """Families as an encoder wants them."""

    families: list[Metric]

    def collect(self) -> Iterable[Metric]:
        return self.families


REFUSAL = 'The header "Authorization: Bearer TOKEN" with POOLHOUSE["METRICS_TOKEN"] is required.\n'

recent: Recent[list[Metric]] = Recent(lambda: [*families_of(take_look())])
os.register_at_fork(after_in_child=recent.forget_parent)


class _EveryAlias(set[str]):
    """The aliases for which ATOMIC_REQUESTS opens no transaction: all, those that are added later included."""

    def __contains__(self, alias: object) -> bool:
        return True


@csrf_exempt  # so that a POST is answered with 405, and not with the page about CSRF
@require_safe
def metrics(request: HttpRequest) -> HttpResponse:
    """Answer in the format that is asked for: 200 as well when a source is away, with poolhouse_source_up 0.

    401 without POOLHOUSE["METRICS_TOKEN"], where that is set.

    Nothing here takes a connection of a pool, whatever the project's ATOMIC_REQUESTS: it answers when a pool is
    exhausted, and when the server is away.
    """
    if not may_read(request):
        return HttpResponse(
            REFUSAL, status=401, content_type="text/plain; charset=utf-8", headers={"WWW-Authenticate": "Bearer"}
        )
    encode, content_type = _encoder(request.headers.get("Accept", ""))
    families = recent.get(options().METRICS_MAX_AGE_S)
    return HttpResponse(encode(_Collected(families)), content_type=content_type)


# What `transaction.non_atomic_requests` notes on a view, but that takes one alias at a time, of those that there are.
metrics._non_atomic_requests = _EveryAlias()  # type: ignore[attr-defined]


def _encoder(accept: str) -> tuple[Callable[[Collector], bytes], str]:
    try:
        return choose_encoder(accept)
    except TypeError:  # it names a version that is none
        return choose_encoder("")
