"""The admin's login over TLS, which a proxy terminates, and over plain http in development."""

import http.client
import re
import signal
import socket
import ssl
import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import closing, contextmanager
from http.cookies import SimpleCookie
from pathlib import Path
from urllib.parse import urlencode

import pytest

from config.env import CHECKOUT
from sandbox.processes import is_listening
from sandbox.stack import Stack
from tests.acceptance.conftest import manage
from tests.conftest import DEADLINE_S, await_that
from tests.tls_proxy import NAME, TIMEOUT_S, tls_proxy

USER, PASSWORD = "ada", "an-engine-of-1843"
LOGIN = "/admin/login/"
MakeStack = Callable[..., Stack]
PRODUCTION = {"DJANGO_ENV": "production", "DB_MAX_CONNS": "2", "DB_MAX_OVERFLOW": "0", "DB_MIN_CONNS": "0"}


@contextmanager
def web(make_stack: MakeStack, **variables: str) -> Iterator[Stack]:
    """Run only the web, with a user who may log in to the admin."""
    stack = make_stack(ALLOWED_HOSTS=f"{NAME},localhost", WEB_PROCESSES="1", **variables)
    creates = f"from django.contrib.auth.models import User; User.objects.create_superuser({USER!r}, '', {PASSWORD!r})"
    manage(stack, "shell", "--command", creates)
    command = [str(Path(sys.executable).parent / "gunicorn"), "--no-control-socket", "config.wsgi"]
    process = subprocess.Popen(command, cwd=CHECKOUT / "backend", env=stack.environment)
    try:
        await_that(lambda: is_listening(stack.web_port) or process.poll() is not None, "the web's start")
        yield stack
    finally:
        process.send_signal(signal.SIGINT)
        process.wait(timeout=DEADLINE_S)


class ThroughProxy(http.client.HTTPSConnection):
    """A connection to the proxy by the name that its certificate has."""

    def __init__(self, port: int, context: ssl.SSLContext) -> None:
        super().__init__(NAME, context=context, timeout=TIMEOUT_S)
        self._address, self._tls = ("127.0.0.1", port), context

    def connect(self) -> None:
        self.sock = self._tls.wrap_socket(socket.create_connection(self._address), server_hostname=NAME)


def log_in(connection: http.client.HTTPConnection, host: str, origin: str) -> http.client.HTTPResponse:
    """Fetch the admin's form and send it, as a browser does; close the connection."""
    with closing(connection):
        return _log_in(connection, host, origin)


def _log_in(connection: http.client.HTTPConnection, host: str, origin: str) -> http.client.HTTPResponse:
    connection.request("GET", LOGIN, headers={"Host": host})
    answer = connection.getresponse()
    form = answer.read().decode()
    assert answer.status == 200, form
    (token,) = re.findall(r'name="csrfmiddlewaretoken" value="(\w+)"', form)
    sent = {
        "Host": host,
        "Origin": origin,
        "Referer": f"{origin}{LOGIN}",
        "Cookie": f"csrftoken={cookies_of(answer)['csrftoken'].value}",
        "Content-Type": "application/x-www-form-urlencoded",
    }
    fields = {"csrfmiddlewaretoken": token, "username": USER, "password": PASSWORD, "next": "/admin/"}
    connection.request("POST", LOGIN, urlencode(fields), sent)
    answer = connection.getresponse()
    answer.read()
    return answer


def cookies_of(answer: http.client.HTTPResponse) -> SimpleCookie:
    return SimpleCookie("\n".join(answer.headers.get_all("Set-Cookie", [])))


@pytest.mark.parametrize(
    ("variables", "status"),
    [
        ({}, 403),  # no header of a stranger's is trusted unless that is asked for
        ({"SECURE_PROXY_SSL_HEADER": "X-Forwarded-Proto"}, 302),
        ({"CSRF_TRUSTED_ORIGINS": f"https://{NAME}"}, 302),
    ],
    ids=["nothing set", "scheme header", "trusted origin"],
)
def test_the_login_behind_a_tls_proxy_is_accepted_once_the_proxy_is_trusted(
    make_stack: MakeStack, tmp_path: Path, variables: dict[str, str], status: int
) -> None:
    with web(make_stack, **variables) as stack, tls_proxy(stack.web_port, tmp_path) as (port, context):
        assert log_in(ThroughProxy(port, context), NAME, f"https://{NAME}").status == status


def test_in_production_the_login_works_only_over_https(make_stack: MakeStack, tmp_path: Path) -> None:
    variables = {**PRODUCTION, "SECURE_PROXY_SSL_HEADER": "X-Forwarded-Proto"}
    with web(make_stack, **variables) as stack, tls_proxy(stack.web_port, tmp_path) as (port, context):
        answer = log_in(ThroughProxy(port, context), NAME, f"https://{NAME}")
        assert (answer.status, answer.headers["Location"]) == (302, "/admin/")
        assert answer.headers["Strict-Transport-Security"] == "max-age=3600"
        cookies = cookies_of(answer)
        assert set(cookies) == {"csrftoken", "sessionid"}
        assert all(cookie["secure"] for cookie in cookies.values())
        assert_plain_http_is_for_probes(stack.web_port)


def assert_plain_http_is_for_probes(port: int) -> None:
    for path, expected in {"/healthz": 200, "/metrics": 401, LOGIN: 301}.items():
        with closing(http.client.HTTPConnection("127.0.0.1", port, timeout=TIMEOUT_S)) as plain:
            plain.request("GET", path, headers={"Host": NAME})
            answer = plain.getresponse()
            assert answer.status == expected, path
    assert answer.headers["Location"] == f"https://{NAME}{LOGIN}"


def test_in_development_the_login_is_over_plain_http(make_stack: MakeStack) -> None:
    with web(make_stack) as stack:
        host = f"localhost:{stack.web_port}"
        plain = http.client.HTTPConnection("127.0.0.1", stack.web_port, timeout=TIMEOUT_S)
        answer = log_in(plain, host, f"http://{host}")
        assert answer.status == 302
        assert not any(cookie["secure"] for cookie in cookies_of(answer).values())


def test_django_s_deployment_check_is_clean_in_production(make_stack: MakeStack) -> None:
    stack = make_stack(**PRODUCTION)
    answer = manage(stack, "check", "--deploy", "--fail-level", "WARNING", check=False)
    assert answer.returncode == 0, answer.stderr


@pytest.mark.parametrize("password", ["password", "1843184318", "short", "ada-lovelace"])
def test_a_weak_password_is_refused(make_stack: MakeStack, password: str) -> None:
    stack = make_stack()
    validates = (
        "from django.contrib.auth.models import User; from django.contrib.auth.password_validation import "
        f"validate_password; validate_password({password!r}, User(username='ada-lovelace'))"
    )
    answer = manage(stack, "shell", "--command", validates, check=False)
    assert answer.returncode != 0
    assert "ValidationError" in answer.stderr
