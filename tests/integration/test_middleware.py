"""The middleware's log lines about requests on a real database, and its response after a pool timeout."""

import asyncio
import inspect
import io
import json
import logging
import re
from collections.abc import AsyncIterator, Callable, Iterator
from typing import Any, TypeVar
from urllib.parse import urlencode

import pytest
from asgiref.sync import async_to_sync, sync_to_async
from django.db import IntegrityError, OperationalError, connection, connections, transaction
from django.http import HttpRequest, HttpResponse, JsonResponse, StreamingHttpResponse
from django.test import AsyncClient, Client
from django.urls import path, re_path
from psycopg2 import sql as composed
from pytest_django import Settings

from poolhouse.conf import options
from poolhouse.errors import PoolTimeoutError, PoolUse
from poolhouse.logs import JsonFormatter, PlainFormatter
from poolhouse.tracing import statements
from poolhouse.tracing.throttle import Throttle
from poolhouse.tracing.work import Work, current_work
from tests.conftest import Stopwatch

pytestmark = [pytest.mark.django_db, pytest.mark.urls(__name__)]

Limits = Callable[..., None]


def run(statement: Any, parameters: Any = None) -> None:
    with connection.cursor() as cursor:
        cursor.execute(statement, parameters)


def my_work() -> Work:
    work = current_work()
    assert work is not None
    return work


def no_connection() -> PoolTimeoutError:
    return PoolTimeoutError("default", 1.5, PoolUse(size=2, overflow=0, in_use=2, waiting=1), "", "all are lent")


def tell(request: HttpRequest) -> HttpResponse:
    work = my_work()
    return JsonResponse({"kind": work.kind, "name": work.name, "view": work.view})


def query(request: HttpRequest, count: int) -> HttpResponse:
    for number in range(count):
        run("SELECT %s", [number])
    return JsonResponse({"statements": my_work().statement_count, "database_s": my_work().database_s})


def query_once(request: HttpRequest) -> HttpResponse:
    run("SELECT 1")
    return HttpResponse("asked")


def query_many(request: HttpRequest) -> HttpResponse:
    with connection.cursor() as cursor:
        cursor.executemany("SELECT pg_sleep(%s)", [(0.03,), (0.03,)])
    return query(request, 0)


def sleep(request: HttpRequest) -> HttpResponse:
    run("SELECT pg_sleep(0.03), 'sesame', %s, 42 -- sesame", ["sesame"])
    return HttpResponse("slept")


def sleep_composed(request: HttpRequest) -> HttpResponse:
    run(composed.SQL("SELECT pg_sleep(0.03), {}").format(composed.Literal("sesame")))
    return HttpResponse("slept")


def hold(request: HttpRequest) -> HttpResponse:
    """Add a hold as a pool's engine does."""
    my_work().wait_s, my_work().hold_s = 0.25, 6
    return HttpResponse("held")


def fail_to_connect(request: HttpRequest) -> HttpResponse:
    unreachable = connections.create_connection("default")
    unreachable.settings_dict = {**unreachable.settings_dict, "PORT": 1}
    unreachable.ensure_connection()
    raise AssertionError("it connected")


def time_out(request: HttpRequest) -> HttpResponse:
    run("SET LOCAL statement_timeout = 20")
    run("SELECT pg_sleep(10)")
    raise AssertionError("it was given the time")


def wait_in_vain(request: HttpRequest) -> HttpResponse:
    raise no_connection()


def leak(request: HttpRequest) -> HttpResponse:
    """Use a secret as a project should not."""
    secret = request.POST["secret"]
    run("SELECT pg_sleep(0.03), 'sesame', $$sesame$$, %s", [secret])
    run("CREATE TEMP TABLE card (number text PRIMARY KEY) ON COMMIT DROP")
    insert = ("INSERT INTO card VALUES (%s), (%s)", [secret, secret])
    match request.GET["how"]:
        case "value":
            run("SELECT %s::int", [secret])
        case "row past Django":
            connection.connection.cursor().execute(*insert)
        case "value past Django":
            connection.connection.cursor().execute("SELECT %s::int", [secret])
        case "copy":
            with connection.cursor() as cursor:
                cursor.copy_expert("COPY card FROM STDIN", io.StringIO(f"{secret}\n{secret}\n"))
        case "group":
            try:
                run(*insert)
            except IntegrityError as error:
                raise ExceptionGroup("tasks", [error, ValueError(f"could not save: {error}")]) from None
        case "argument":
            _log_as_projects_do(lambda: run(*insert))
    raise OperationalError(f"invalid dsn: postgresql://me:{secret}@host/db; password=sesame")


def _log_as_projects_do(fail: Callable[[], None]) -> None:
    with transaction.atomic():
        try:
            with transaction.atomic():
                fail()
        except IntegrityError as error:
            logger, caught = logging.getLogger("shop"), error
            logger.exception("text: %s", str(error))
            logger.error(f"could not save: {error}, {[error]}")
        logger.error("later: %s, %r", caught, caught)
        logger.error("later: %(error)s", {"error": caught})
        logger.error(caught)


def stream(request: HttpRequest) -> StreamingHttpResponse:
    def rows() -> Iterator[str]:
        for _ in range(2):
            run("SELECT 1")
            yield my_work().name

    return StreamingHttpResponse(rows())


async def stream_async(request: HttpRequest) -> StreamingHttpResponse:
    async def rows() -> AsyncIterator[str]:
        for _ in range(2):
            await sync_to_async(run)("SELECT 1")
            yield my_work().name

    return StreamingHttpResponse(rows())


async def query_async(request: HttpRequest) -> HttpResponse:
    name = my_work().name
    await sync_to_async(run)("SELECT pg_sleep(0.03)")
    await asyncio.sleep(0)
    assert my_work().name == name
    return await sync_to_async(query)(request, 1)


async def wait_in_vain_async(request: HttpRequest) -> HttpResponse:
    raise no_connection()


urlpatterns = [
    path("tell/", tell, name="tell-name"),
    re_path(r"^tell/[\s\S]+", tell),
    path("query/<int:count>", query, name="query"),
    *(
        path(f"{view.__name__}/", view, name=view.__name__)
        for view in (
            *(query_once, query_many, sleep, sleep_composed, hold, fail_to_connect, time_out, wait_in_vain, leak),
            *(stream, stream_async, query_async, wait_in_vain_async),
        )
    ),
]


class ImpatientMiddleware:
    """A middleware that needs the database itself, as sessions do."""

    def __init__(self, get_response: Any) -> None:
        self.get_response = get_response

    def __call__(self, request: HttpRequest) -> HttpResponse:
        raise no_connection()


@pytest.fixture(autouse=True)
def limits(settings: Settings, monkeypatch: pytest.MonkeyPatch) -> Iterator[Limits]:
    """Set keys of POOLHOUSE; what is not set logs nothing. Only the middleware under test is installed."""
    settings.MIDDLEWARE = ["poolhouse.middleware.DatabaseMiddleware"]
    quiet = {"SLOW_QUERY_MS": -1, "REQUEST_QUERIES": -1, "SLOW_REQUEST_DATABASE_MS": -1}
    quiet |= {"POOL_WAIT_MS": -1, "POOL_HOLD_MS": -1}

    def limit(**keys: Any) -> None:
        settings.POOLHOUSE = {**settings.POOLHOUSE, "SERVER_TIMING": False, **quiet, **keys}
        options.cache_clear()

    monkeypatch.setattr(statements, "_slow", Throttle())
    limit()
    yield limit
    options.cache_clear()


def lines(caplog: pytest.LogCaptureFixture, logger: str) -> list[logging.LogRecord]:
    return [record for record in caplog.records if record.name == f"poolhouse.tracing.{logger}"]


def line_of(function: Callable[..., Any], text: str) -> int:
    found, first = inspect.getsourcelines(function)
    return first + next(number for number, line in enumerate(found) if text in line)


C = TypeVar("C", Client, AsyncClient)


def unraising(client: C) -> C:
    """Let a client return Django's response to an error instead of raising it."""
    client.raise_request_exception = False
    return client


def ask_async(address: str) -> Any:
    return async_to_sync(unraising(AsyncClient()).get)(address)


def test_a_request_is_named_by_method_and_path_without_its_query_string(client: Client) -> None:
    assert client.post("/tell/?token=sesame").json() == {"kind": "request", "name": "POST /tell/", "view": "tell-name"}
    assert current_work() is None


def test_a_path_cannot_forge_a_log_line(client: Client) -> None:
    assert client.get("/tell/a%0AERROR%20b").json()["name"] == "GET /tell/a%0AERROR%20b"
    assert client.get("/tell/%C3%A9 b").json()["name"] == "GET /tell/é b"


def test_a_view_without_a_name_is_logged_by_its_path(client: Client) -> None:
    assert client.get("/tell/a").json()["view"] == f"{__name__}.tell"


def test_statements_are_counted_and_timed_for_their_request_alone(client: Client) -> None:
    assert client.get("/query/3").json()["statements"] == 3
    with Stopwatch() as asking:
        many = client.get("/query_many/").json()
    assert many["statements"] == 1
    assert 0.06 <= many["database_s"] <= asking.s
    run("SELECT 1")
    assert client.get("/query/0").json() == {"statements": 0, "database_s": 0.0}


def test_each_connection_has_one_timer_despite_reconnects_and_other_wrappers() -> None:
    wrapper = connections.create_connection("default")
    try:
        with wrapper.execute_wrapper(lambda execute, *arguments: execute(*arguments)):
            for _ in range(3):
                wrapper.ensure_connection()
                wrapper.close()
        assert wrapper.execute_wrappers == [statements._timed]
    finally:
        wrapper.close()


def test_a_slow_statement_is_logged_without_its_values(
    client: Client, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits(SLOW_QUERY_MS=20)
    with Stopwatch() as asking:
        client.get("/sleep/?token=sesame")
    limits(SLOW_QUERY_MS=60_000)
    client.get("/sleep/")
    (line,) = lines(caplog, "statements")
    place = f"{__file__}:{line_of(run, 'execute')}"
    assert line.levelname == "WARNING"
    assert re.fullmatch(
        rf"slow statement: \d+ ms on default for request GET /sleep/, view sleep at {re.escape(place)}: "
        r"SELECT pg_sleep\(\?\), \?, \?, \?",
        line.getMessage(),
    )
    assert 30 <= vars(line)["duration_ms"] <= asking.ms
    assert (vars(line)["alias"], vars(line)["view"], vars(line)["caller"]) == ("default", "sleep", place)


def test_a_composed_statement_hides_its_values_as_well(
    client: Client, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits(SLOW_QUERY_MS=20)
    client.get("/sleep_composed/")
    (line,) = lines(caplog, "statements")
    assert vars(line)["sql"] == "SELECT pg_sleep(?), ?"


def test_a_statement_that_fails_is_timed_too(client: Client, limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    limits(SLOW_QUERY_MS=10)
    unraising(client).get("/time_out/")
    line = lines(caplog, "statements")[-1]
    assert vars(line)["sql"] == "SELECT pg_sleep(?)"


def test_a_repeated_slow_statement_is_counted(client: Client, limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    limits(SLOW_QUERY_MS=20, SLOW_QUERY_INTERVAL_S=3600)
    for _ in range(3):
        client.get("/sleep/")
    assert len(lines(caplog, "statements")) == 1
    limits(SLOW_QUERY_MS=20, SLOW_QUERY_INTERVAL_S=0)
    client.get("/sleep/")
    assert "(2 more like it since the last line)" in lines(caplog, "statements")[1].getMessage()
    assert vars(lines(caplog, "statements")[1])["held_back"] == 2


@pytest.mark.parametrize(
    ("limit", "over_and_under", "text"),
    [
        ({"REQUEST_QUERIES": 2}, ("/query/3", "/query/2"), "costly request GET /query/3, view query: 3 queries in "),
        (
            {"SLOW_REQUEST_DATABASE_MS": 20},
            ("/sleep/", "/query/0"),
            "costly request GET /sleep/, view sleep: 1 query in ",
        ),
        ({"POOL_WAIT_MS": 200}, ("/hold/", "/query/1"), "; wait 250 ms, hold 6000 ms"),
        ({"POOL_HOLD_MS": 5000}, ("/hold/", "/query/1"), "; wait 250 ms, hold 6000 ms"),
    ],
)
def test_a_request_is_logged_when_it_is_over_a_threshold(
    limits: Limits, caplog: pytest.LogCaptureFixture, limit: dict[str, int], over_and_under: tuple[str, str], text: str
) -> None:
    limits(**limit)
    for address in over_and_under:
        Client().get(address)
    (line,) = lines(caplog, "log_lines")
    assert text in line.getMessage()


def test_an_unreachable_server_is_logged_with_alias_and_request(
    client: Client, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    assert unraising(client).get("/fail_to_connect/?token=sesame").status_code == 500
    (line,) = lines(caplog, "log_lines")
    assert line.getMessage().startswith(
        "database default failed request GET /fail_to_connect/, view fail_to_connect: OperationalError: "
    )
    assert "refused" in line.getMessage()


def test_a_statement_canceled_by_the_server_is_logged_with_its_sqlstate(
    client: Client, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    assert unraising(client).get("/time_out/").status_code == 500
    (line,) = lines(caplog, "log_lines")
    assert (vars(line)["alias"], vars(line)["sqlstate"], vars(line)["view"]) == ("default", "57014", "time_out")
    assert "statement timeout" in line.getMessage()


@pytest.mark.parametrize("ask", [lambda: Client().get("/wait_in_vain/"), lambda: ask_async("/wait_in_vain_async/")])
def test_a_pool_timeout_is_a_503_with_retry_after(
    ask: Callable[[], Any], limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    answer = ask()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert answer.headers["Content-Type"] == "text/plain; charset=utf-8"
    assert answer.content.decode() == "No database connection is available. Try again in 5 seconds.\n"
    (line,) = lines(caplog, "log_lines")
    assert "PoolTimeoutError: default: no connection within 1.50 s: all are lent; size 2" in line.getMessage()
    assert "request GET /wait_in_vain" in line.getMessage()


@pytest.mark.parametrize(
    ("accept", "kind"),
    [
        ("application/json", "application/json"),
        ("application/json, */*;q=0.5", "application/json"),
        ("text/html,*/*;q=0.8", "text/plain; charset=utf-8"),
        ("image/png", "text/plain; charset=utf-8"),
    ],
)
def test_the_503_is_json_on_request(client: Client, accept: str, kind: str) -> None:
    answer = client.get("/wait_in_vain/", headers={"Accept": accept})
    assert (answer.status_code, answer.headers["Content-Type"]) == (503, kind)
    if kind == "application/json":
        assert answer.json() == {"detail": "No database connection is available. Try again in 5 seconds."}


@pytest.mark.parametrize("ask", [lambda: unraising(Client()).get("/tell/"), lambda: ask_async("/query_async/")])
def test_a_pool_timeout_in_another_middleware_is_a_503_too(
    settings: Settings, ask: Callable[[], Any], caplog: pytest.LogCaptureFixture
) -> None:
    settings.MIDDLEWARE = ["poolhouse.middleware.DatabaseMiddleware", f"{__name__}.ImpatientMiddleware"]
    answer = ask()
    assert (answer.status_code, answer.headers["Retry-After"]) == (503, "5")
    assert len(lines(caplog, "log_lines")) == 1


def test_server_timing_is_sent_if_enabled(client: Client, limits: Limits) -> None:
    assert "Server-Timing" not in client.get("/query/3").headers
    limits(SERVER_TIMING=True)
    told = client.get("/query/3").headers["Server-Timing"]
    assert re.fullmatch(r'db;dur=\d+\.\d;desc="3 queries"', told)
    assert 'desc="1 query"' in client.get("/query/1").headers["Server-Timing"]
    assert "pool-wait;dur=250.0" in client.get("/hold/").headers["Server-Timing"]


def test_an_async_view_s_statements_are_counted_from_whichever_thread(
    limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits(SLOW_QUERY_MS=20, REQUEST_QUERIES=1)
    assert ask_async("/query_async/").json()["statements"] == 2
    assert "for request GET /query_async/, view query_async" in lines(caplog, "statements")[0].getMessage()
    assert "2 queries" in lines(caplog, "log_lines")[0].getMessage()
    assert current_work() is None


def test_concurrent_requests_are_counted_separately() -> None:
    async def ask_at_once() -> list[Any]:
        client = AsyncClient()
        return await asyncio.gather(*(client.get(address) for address in ("/query_async/", "/query/5", "/query/0")))

    assert [answer.json()["statements"] for answer in async_to_sync(ask_at_once)()] == [2, 5, 0]


def test_a_stream_counts_as_part_of_its_request(
    client: Client, limits: Limits, caplog: pytest.LogCaptureFixture
) -> None:
    limits(REQUEST_QUERIES=1)
    answer = client.get("/stream/")
    pieces = iter(answer)
    assert (next(pieces), current_work()) == (b"GET /stream/", None)
    assert lines(caplog, "log_lines") == []
    assert list(pieces) == [b"GET /stream/"]
    assert "2 queries" in lines(caplog, "log_lines")[0].getMessage()


def test_an_async_stream_counts_as_part_of_its_request(limits: Limits, caplog: pytest.LogCaptureFixture) -> None:
    limits(REQUEST_QUERIES=1)

    async def read() -> list[bytes]:
        answer: Any = await AsyncClient().get("/stream_async/")
        return [piece async for piece in answer.streaming_content]

    assert async_to_sync(read)() == [b"GET /stream_async/"] * 2
    assert "2 queries" in lines(caplog, "log_lines")[0].getMessage()


@pytest.mark.parametrize("formatter", [PlainFormatter(), JsonFormatter()])
@pytest.mark.parametrize("how", ["value", "dsn", "row past Django", "value past Django", "copy", "group", "argument"])
def test_no_secret_reaches_the_log(client: Client, limits: Limits, formatter: logging.Formatter, how: str) -> None:
    limits(SLOW_QUERY_MS=0, REQUEST_QUERIES=0, SLOW_REQUEST_DATABASE_MS=0, POOL_HOLD_MS=0)
    out, root = io.StringIO(), logging.getLogger()
    handler = logging.StreamHandler(out)
    handler.setFormatter(formatter)
    level = root.level
    root.addHandler(handler)
    root.setLevel(logging.DEBUG)
    try:
        headers = {"Authorization": "Bearer sesame", "Cookie": "sessionid=sesame"}
        address = f"/leak/?{urlencode({'how': how, 'token': 'sesame'})}"
        answer = unraising(client).post(address, {"secret": "sesame"}, headers=headers)
    finally:
        root.removeHandler(handler)
        root.setLevel(level)
    assert answer.status_code == 500
    log = out.getvalue()
    assert "slow statement: " in log
    assert "costly request POST /leak/" in log
    assert "Traceback" in log, "Django's own line, with the error's words"
    assert ("database default failed request POST /leak/" in log) == (how in ("dsn", "argument"))
    assert ("duplicate key value" in log) == (how in ("row past Django", "copy", "group", "argument"))
    assert "sesame" not in log
    if isinstance(formatter, JsonFormatter):
        assert all(json.loads(line)["level"] for line in log.splitlines())
