"""Charsets in requests, on the application that gunicorn serves."""

import codecs
import encodings
import io
from collections.abc import Callable, Iterator
from http import HTTPStatus
from typing import Any

import pytest

from api.tokens import create_token
from config.charsets import bound_codec_search
from config.wsgi import application

pytestmark = pytest.mark.django_db(transaction=True)

NOT_OF_TEXT = ["rot13", "base64", "zlib", "hex", "uu", "quopri"]
NOT_OF_CSV = [
    "undefined",
    "punycode",
    "idna",
    "unicode_escape",
    "raw_unicode_escape",
    "utf-7",
    "utf-16",
    "hz",
    "mbcs",
    "x",
]
EXTENDED = ["charset*=rot13''x", "charset*=undefined''x", "charset*=idna''x%ff", "charset*=nothing''x", "x*=idna''%ff"]
UPLOAD = "/api/ingest/?time=time&values=load"


@pytest.fixture(autouse=True)
def python_s_own_search() -> Iterator[None]:
    yield
    bound_codec_search()


def answer(method: str, address: str, content_type: str, body: bytes = b"", token: str = "") -> tuple[int, str]:
    """Send a request to the application as a server does; return the status and content type of the response."""
    answered: list[Any] = []
    path, _, query = address.partition("?")
    environ = {
        "REQUEST_METHOD": method,
        "PATH_INFO": path,
        "QUERY_STRING": query,
        "SERVER_NAME": "localhost",
        "SERVER_PORT": "80",
        "CONTENT_LENGTH": str(len(body)),
        "wsgi.input": io.BytesIO(body),
        "wsgi.url_scheme": "http",
        "CONTENT_TYPE": content_type,
        "HTTP_AUTHORIZATION": f"Bearer {token}",
    }

    def start_response(status: str, headers: list[tuple[str, str]], error: object = None) -> Callable[[bytes], object]:
        answered.append((int(status[:3]), dict(headers)["Content-Type"]))
        return answered.append

    response: Any = application(environ, start_response)
    response.close()
    return answered[0]  # type: ignore[no-any-return]


@pytest.mark.parametrize("charset", [*(f"charset={name}" for name in [*NOT_OF_TEXT, *NOT_OF_CSV]), *EXTENDED])
def test_an_unknown_charset_is_refused_after_the_token_is_checked(charset: str) -> None:
    problem = "application/problem+json"
    asked = ("POST", UPLOAD, f"text/csv; {charset}", b"time,load\n")
    assert answer(*asked) == (HTTPStatus.UNAUTHORIZED, problem)
    refused, kind = answer(*asked, token=create_token("tests"))
    assert kind == problem
    assert refused == HTTPStatus.UNSUPPORTED_MEDIA_TYPE or "x*" in charset


@pytest.mark.parametrize("charset", [*(f"charset={name}" for name in [*NOT_OF_TEXT, *NOT_OF_CSV]), *EXTENDED])
@pytest.mark.parametrize(("method", "path"), [("GET", "/healthz"), ("GET", "/admin/login/"), ("POST", "/admin/login/")])
def test_an_unknown_charset_has_no_effect_on_other_pages(method: str, path: str, charset: str) -> None:
    for kind in ("text/csv", "application/x-www-form-urlencoded", "multipart/form-data; boundary=x"):
        status, _ = answer(method, f"{path}?next=/admin/", f"{kind}; {charset}", b"a=b")
        assert status < HTTPStatus.INTERNAL_SERVER_ERROR


@pytest.mark.parametrize("parameter", EXTENDED)
def test_an_unknown_charset_of_a_form_s_part_has_no_effect(parameter: str) -> None:
    part = f'--x\r\nContent-Disposition: form-data; name="a"; {parameter}\r\n\r\n1\r\n--x--\r\n'.encode()
    kind = "multipart/form-data; boundary=x"
    assert answer("POST", "/admin/login/", kind, part)[0] == HTTPStatus.FORBIDDEN


def test_names_of_unknown_charsets_are_not_cached() -> None:
    answer("GET", "/healthz", "text/csv; charset=unknown")
    before = len(encodings._cache)
    for number in range(500):
        answer("GET", "/healthz", f"text/csv; charset=unknown{number}")
    assert len(encodings._cache) == before


def test_every_codec_is_still_found() -> None:
    for name in ("utf-8", "UTF8", "latin-1", "ISO-8859-1", "cp1252", "windows-1252", "koi8-r", "idna", "utf-8-sig"):
        assert codecs.lookup(name)
    with pytest.raises(LookupError):
        codecs.lookup("nothing")
