"""The lab's web application, with poolhouse only on its own engine, so that other pools do not pay for it."""

from typing import Any

from django.conf import settings

from config.strategies import POOLED_ENGINE
from lab.webapp import configure

configure(with_poolhouse=settings.DATABASES["default"]["ENGINE"] == POOLED_ENGINE)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - it sets Django up

application: Any = get_wsgi_application()
