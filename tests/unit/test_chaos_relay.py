"""The network of `scripts/bench chaos` that can be taken away."""

import socket
from collections import Counter
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from threading import Thread

import pytest

from lab.chaos.relay import HOST, Relay, relay
from lab.chaos.system import quiet_ports
from tests.conftest import await_that

DEADLINE_S = 60
received: Counter[bytes] = Counter()
"""what has reached the server"""


def answer_all(server: socket.socket) -> None:
    """Answer each piece with itself in capitals."""
    with suppress(OSError):
        while True:
            client, _ = server.accept()
            Thread(target=answer, args=(client,), daemon=True).start()


def answer(client: socket.socket) -> None:
    with client, suppress(OSError):
        while data := client.recv(100):
            received[data] += 1
            client.sendall(data.upper())


@pytest.fixture
def server() -> Iterator[socket.socket]:
    with socket.create_server((HOST, 0)) as listening:
        Thread(target=answer_all, args=(listening,), daemon=True).start()
        yield listening
        listening.shutdown(socket.SHUT_RDWR)


@pytest.fixture
def ports(server: socket.socket) -> tuple[int, int]:
    return quiet_ports(1)[0], server.getsockname()[1]


@pytest.fixture
def network(ports: tuple[int, int]) -> Iterator[Relay]:
    with relay(*ports) as made:
        yield made


def open_client(stack: ExitStack, ports: tuple[int, int]) -> socket.socket:
    return stack.enter_context(socket.create_connection((HOST, ports[0]), timeout=DEADLINE_S))


def ask(client: socket.socket, text: bytes) -> bytes:
    client.sendall(text)
    return client.recv(100)


def is_reset(client: socket.socket) -> bool:
    try:
        return client.recv(100) == b""
    except ConnectionError:
        return True


def is_reset_when_opened(stack: ExitStack, port: int) -> bool:
    """Return True for a reset, be it while connecting: it may come before `connect` has returned."""
    try:
        return is_reset(open_client(stack, (port, 0)))
    except ConnectionResetError:
        return True


@pytest.fixture
def stack() -> Iterator[ExitStack]:
    with ExitStack() as made:
        yield made


def test_it_carries_several_connections(network: Relay, ports: tuple[int, int], stack: ExitStack) -> None:
    first, second = open_client(stack, ports), open_client(stack, ports)
    assert (ask(first, b"a"), ask(second, b"b"), ask(first, b"c")) == (b"A", b"B", b"C")


def test_it_refuses_and_resets_until_it_heals(network: Relay, ports: tuple[int, int], stack: ExitStack) -> None:
    client = open_client(stack, ports)
    assert ask(client, b"a") == b"A"
    network.refuse()
    assert is_reset(client)
    with pytest.raises(ConnectionRefusedError):
        open_client(stack, ports)
    with socket.socket() as other, pytest.raises(OSError, match="in use"):
        other.bind((HOST, ports[0]))
    network.heal()
    assert ask(open_client(stack, ports), b"b") == b"B"


def test_what_is_sent_while_it_is_silent_arrives_afterwards(
    network: Relay, ports: tuple[int, int], stack: ExitStack
) -> None:
    client = open_client(stack, ports)
    assert ask(client, b"a") == b"A"
    network.fall_silent()
    other = open_client(stack, ports)
    for each in (client, other):
        each.sendall(b"b")
        each.settimeout(0.05)
        with pytest.raises(TimeoutError):
            each.recv(100)
        each.settimeout(DEADLINE_S)
    network.heal()
    assert (client.recv(100), other.recv(100)) == (b"B", b"B")


def test_what_is_asked_while_answers_are_lost_is_done_and_never_answered(
    ports: tuple[int, int], server: socket.socket, stack: ExitStack
) -> None:
    with relay(*ports) as network:
        client = open_client(stack, ports)
        assert ask(client, b"a") == b"A"
        network.lose_answers()
        client.sendall(b"b")
        client.settimeout(0.05)
        with pytest.raises(TimeoutError):
            client.recv(100)
        network.heal()
        client.settimeout(DEADLINE_S)
        assert is_reset(client)
        assert ask(open_client(stack, ports), b"c") == b"C"


def test_answers_can_be_lost_after_a_word_alone(network: Relay, ports: tuple[int, int], stack: ExitStack) -> None:
    client, other = open_client(stack, ports), open_client(stack, ports)
    network.lose_answers(after=b"commit")
    assert (ask(client, b"a"), ask(other, b"b")) == (b"A", b"B")
    before = received[b"now commit"]
    client.sendall(b"now commit")
    await_that(lambda: received[b"now commit"] > before)
    assert ask(other, b"c") == b"C"
    network.heal()
    assert is_reset(client)
    assert ask(other, b"d") == b"D"


def test_a_connection_to_a_server_that_is_away_is_reset(
    network: Relay, ports: tuple[int, int], stack: ExitStack
) -> None:
    (nobody,) = quiet_ports(1)
    (port,) = quiet_ports(1)
    with relay(port, nobody):
        assert is_reset_when_opened(stack, port)
