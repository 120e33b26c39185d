"""The lab's web application with poolhouse, so that it reports wait times with every strategy."""

from typing import Any

from lab.webapp import configure

configure(with_poolhouse=True)

from django.core.wsgi import get_wsgi_application  # noqa: E402 - it sets Django up

application: Any = get_wsgi_application()
