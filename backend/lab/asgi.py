"""The lab's web application for an ASGI server."""

from typing import Any

from lab.webapp import configure

configure(with_poolhouse=True)

from django.core.asgi import get_asgi_application  # noqa: E402 - it sets Django up

application: Any = get_asgi_application()
