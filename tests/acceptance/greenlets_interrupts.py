"""The page of the project in greenlets.py whose checkouts gevent.Timeout breaks off."""

import random
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager

import gevent
from django.http import HttpRequest, HttpResponse, JsonResponse

from tests.acceptance import interruptions

WAITS = ("opened_within", "wait")
OTHERS, TIMEOUT_MAX_S = 5, 0.03


def interrupt(request: HttpRequest, times: int) -> HttpResponse:
    """Interrupt until both waits of a checkout, for an attempt to connect and for its turn, were hit so often."""
    hits: Counter[str] = Counter()
    chance = random.Random(1)
    is_within_bounds = True
    with others_at_work():
        while min(hits[wait] for wait in WAITS) < times:
            timeout = gevent.Timeout(chance.uniform(0, TIMEOUT_MAX_S))
            try:
                with timeout:
                    interruptions.use_a_new_one()
            except gevent.Timeout as raised:
                if raised is not timeout:
                    raise
                hits[interruptions.place_of(raised)] += 1
            is_within_bounds &= interruptions.is_within_bounds()
    return JsonResponse({"is_within_bounds": is_within_bounds, "figures": interruptions.figures(), "hits": hits})


@contextmanager
def others_at_work() -> Iterator[None]:
    """Have more greenlets check connections out than the pool has, for the length of a block."""
    is_over = gevent.event.Event()

    def work() -> None:
        while not is_over.is_set():
            interruptions.ask("SELECT 1")
            gevent.sleep(0)

    working = [gevent.spawn(work) for _ in range(OTHERS)]
    try:
        yield
    finally:
        is_over.set()
        gevent.joinall(working, raise_error=True)
