"""The web's entry point for gunicorn."""

import django

from config.start import start

start("web")
django.setup(set_prefix=False)

from config.charsets import Handler, bound_codec_search  # noqa: E402 - needs Django's settings

bound_codec_search()
application = Handler()
