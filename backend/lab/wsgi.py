"""The lab's web with poolhouse in it, whatever the strategy, so that every one tells its facts."""

from typing import Any

from lab.webapp import configure

configure(with_poolhouse=True)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - it sets Django up

application: Any = get_wsgi_application()
