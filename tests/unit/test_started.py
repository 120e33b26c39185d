"""The service of a process, derived from how it was started."""

import sys

import pytest

from poolhouse import identity, started
from poolhouse.conf import options


@pytest.mark.parametrize(
    ("command", "service"),
    [
        ("/srv/venv/bin/gunicorn shop.wsgi", "web"),
        ("/srv/venv/lib/python3/site-packages/gunicorn/__main__.py shop.wsgi", "web"),
        ("/srv/venv/bin/uvicorn shop.asgi:application --workers 2", "web"),
        ("/srv/venv/lib/python3/site-packages/uvicorn/__main__.py shop.asgi", "web"),
        ("uwsgi", "web"),
        ("manage.py runserver 0.0.0.0:8000", "web"),
        ("/srv/venv/bin/celery -A shop worker --loglevel info", "worker"),
        ("/srv/venv/bin/celery --app=shop --no-color worker -B", "worker"),
        ("/srv/venv/bin/celery -A beat worker", "worker"),
        ("/srv/venv/lib/python3/site-packages/celery/__main__.py -A shop worker", "worker"),
        ("/srv/venv/bin/celery -A shop beat", "beat"),
        ("/srv/venv/bin/celery -A shop inspect ping", "manage"),
        ("manage.py qcluster", "worker"),
        ("manage.py db_worker --interval 1", "worker"),
        ("/srv/venv/bin/rq worker", "worker"),
        ("./manage.py migrate --noinput", "manage"),
        ("/srv/venv/bin/django-admin shell", "manage"),
        ("/srv/venv/lib/python3/site-packages/django/__main__.py migrate", "manage"),
        ("manage.py", "manage"),
        ("/srv/venv/bin/pytest -q", "django"),
        ("-c", "django"),
        ("", "django"),
    ],
)
def test_the_service_follows_from_the_command_line(command: str, service: str) -> None:
    assert started.service_of(command.split()) == service


def test_the_service_in_the_settings_comes_first(monkeypatch: pytest.MonkeyPatch, settings: object) -> None:
    monkeypatch.setattr(sys, "argv", ["/srv/venv/bin/celery", "-A", "shop", "beat"])
    monkeypatch.setattr(settings, "POOLHOUSE", {"SERVICE": ""})
    options.cache_clear()
    try:
        assert identity.current().service == "beat"
        monkeypatch.setattr(settings, "POOLHOUSE", {"SERVICE": "clock"})
        options.cache_clear()
        assert identity.current().service == "clock"
    finally:
        monkeypatch.undo()
        options.cache_clear()
