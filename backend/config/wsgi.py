"""The web's entry point for gunicorn."""

from django.core.wsgi import get_wsgi_application

from config.start import start

start("web")

application = get_wsgi_application()
