"""manage.py lab_connect, run short on servers of its own, and the relay that it measures a network with."""

import json
import socket
import subprocess
import sys
import time
from pathlib import Path
from typing import Any
from xml.etree import ElementTree

import pytest

from config.env import CHECKOUT
from lab.connect import DRIVERS, WAYS
from lab.connect_held import IDLE, STATES
from lab.connect_relay import relay
from lab.connect_report import judge
from tests.conftest import DEADLINE_S

# What is to be seen on the wire, TCP's own handshake first. TLS takes two where the server knows the key that the
# client guesses, and three on PostgreSQL 17, which wants another.
TRIPS = {
    "tcp_md5": {3},
    "tcp_scram_1": {4},
    "tcp": {4},
    "tls_password": {5, 6},
    "tls_direct": {5, 6},
    "tls": {6, 7},
    "pgbouncer_transaction": {4},
    "pgbouncer_session": {4},
    "pgbouncer_verifier": {4},
    "pgbouncer_prefer": {5},
}


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("connect")


@pytest.fixture(scope="module")
def result(folder: Path) -> dict[str, Any]:
    """What the shortest measurement gives."""
    command = [sys.executable, "backend/manage.py", "lab_connect", "--rounds", "1"]
    files = ["--json", str(folder / "connect.json"), "--chart", str(folder / "connect.svg")]
    answer = subprocess.run([*command, *files], cwd=CHECKOUT, capture_output=True, text=True, timeout=10 * DEADLINE_S)
    assert answer.returncode == 0, answer.stderr
    assert "TLS, SCRAM" in answer.stdout
    document: dict[str, Any] = json.loads((folder / "connect.json").read_text())
    return document


def test_every_way_was_taken_with_both_drivers(result: dict[str, Any]) -> None:
    for driver in DRIVERS:
        assert set(result["open_ms"][driver]) == set(WAYS)
        for way, figures in result["open_ms"][driver].items():
            connect, answer = figures["connect"], figures["answer"]
            assert 0 < connect["median"] <= connect["p95"], way
            assert len(connect["rounds"]) == result["rounds"] == 1
            assert connect["median"] < answer["median"], "an answer comes after the connection"
    assert set(result["libpq"]) == set(DRIVERS)


def test_round_trips_are_those_of_the_protocol(result: dict[str, Any]) -> None:
    for driver in DRIVERS:
        stretched = result["network"][driver]
        assert set(stretched) == set(TRIPS)
        for way, found in stretched.items():
            assert found["trips"] in TRIPS[way], way
        # Asked whether it knows TLS, the server has one more answer to give.
        assert stretched["tls"]["trips"] == stretched["tls_direct"]["trips"] + 1


def test_a_process_of_the_server_s_grows_with_what_it_is_asked(result: dict[str, Any]) -> None:
    for way, states in result["memory_kib"].items():
        for kind in ("resident", "proportional", "private", "anonymous"):
            sizes = [states[state][kind] for state in STATES]
            assert sizes == sorted(sizes), (way, kind)
            assert 0 < sizes[0] <= sizes[-1] < 100 * 1024
            assert len(set(sizes)) == len(sizes), (way, kind)
    assert result["memory_kib"]["tls"]["connected"]["anonymous"] > result["memory_kib"]["tcp"]["connected"]["anonymous"]


def test_idle_connections_take_memory_and_pgbouncer_s_clients_hardly_any(result: dict[str, Any]) -> None:
    idle = result["idle"]
    assert [int(count) for count in idle["update_us"]] == list(IDLE)
    assert all(us > 0 for spans in idle["update_us"].values() for us in spans)
    assert 200 < idle["server_kib_each"] < 100 * 1024
    assert result["pooler_client_kib"] < idle["server_kib_each"] / 10


def test_the_chart_has_a_row_for_each_way(result: dict[str, Any], folder: Path) -> None:
    drawn = ElementTree.parse(folder / "connect.svg")
    words = {element.text for element in drawn.iter("{http://www.w3.org/2000/svg}text")}
    assert {way.label for way in WAYS.values()} | set(DRIVERS.values()) <= words
    assert f"+ {result['network']['psycopg2']['tcp']['trips']} × RTT" in words


def test_claims_are_held_against_the_figures(result: dict[str, Any]) -> None:
    assert result["claims"] == judge(result)
    assert [one["verdict"] for one in judge(slow(result))] == ["refuted", "confirmed", "corrected"]


def slow(result: dict[str, Any]) -> dict[str, Any]:
    """The same on a machine where everything takes its time."""
    spans = {"connect": {"median": 99.0}}
    figures = {"psycopg2": dict.fromkeys(WAYS, spans)}
    far = {"psycopg2": {way: {"base_ms": 70.0, "fitted_trips": 4.0} for way in TRIPS}}
    small, large = ({"anonymous": 1024.0 * mib, "page_tables": 0.0} for mib in (1, 8))
    memory = {"tcp": {"one_query": small, "many_queries": large, "many_prepared": large}}
    return {**result, "open_ms": figures, "network": far, "memory_kib": memory}


def test_a_relay_delays_both_directions_and_the_handshake_and_counts_what_is_waited_for() -> None:
    with socket.create_server(("127.0.0.1", 0)) as server, relay(server.getsockname()[1]) as network:
        network.delay_s = 0.02
        spans_s = []
        for _ in range(3):
            spans_s.append(ask_through(network.port, server))
            assert network.trips == 3, "a handshake and two questions"
            assert network.is_idle.wait(timeout=DEADLINE_S)
    # Three round trips of 40 ms; the handshake's is made up for at the first question.
    assert min(first for first, _ in spans_s) >= 0.08
    assert min(second for _, second in spans_s) >= 0.04


def ask_through(port: int, server: socket.socket) -> tuple[float, float]:
    """Ask twice, and give how long each answer took."""
    with socket.create_connection(("127.0.0.1", port)) as client:
        begun_s = time.perf_counter()
        client.sendall(b"first")
        with server.accept()[0] as serving:
            assert serving.recv(100) == b"first"
            serving.sendall(b"answer")
            assert client.recv(100) == b"answer"
            first_s, begun_s = time.perf_counter() - begun_s, time.perf_counter()
            client.sendall(b"second")
            assert serving.recv(100) == b"second"
            serving.sendall(b"answer")
            assert client.recv(100) == b"answer"
            return first_s, time.perf_counter() - begun_s
