"""Access to /metrics, which names hosts, roles and versions."""

from django.http import HttpRequest
from django.utils.crypto import constant_time_compare

from poolhouse.conf import options


def may_read(request: HttpRequest) -> bool:
    """Return True if the request has POOLHOUSE["METRICS_TOKEN"], or if that is empty."""
    token = options().METRICS_TOKEN
    return not token or constant_time_compare(request.headers.get("Authorization", ""), f"Bearer {token}")
