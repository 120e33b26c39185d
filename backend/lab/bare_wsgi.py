"""The lab's web with poolhouse in it for its own engine alone: what it costs is counted against nobody else."""

from typing import Any

from django.conf import settings

from config.strategies import POOLED_ENGINE
from lab.webapp import configure

configure(with_poolhouse=settings.DATABASES["default"]["ENGINE"] == POOLED_ENGINE)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - it sets Django up

application: Any = get_wsgi_application()
