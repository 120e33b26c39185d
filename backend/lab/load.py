"""Load on a web server from one thread: so many clients, each of which asks again when it has its answer.

A connection stays with the process that accepted it, and which one that is, is chance. So connections are opened until
each process has its share of them; otherwise a round measures one process or two, as it happens.
"""

import re
import selectors
import socket
import time
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, field

REQUEST = b"GET / HTTP/1.1\r\nHost: localhost\r\n\r\n"
LENGTH = re.compile(rb"\r\ncontent-length: *(\d+)\r\n", re.IGNORECASE)
PROCESS = re.compile(rb"\r\nx-process: *(\d+)\r\n", re.IGNORECASE)
HEAD_END = b"\r\n\r\n"
ATTEMPTS_A_CLIENT = 50
ANSWER_TIMEOUT_S = 10


@dataclass
class Answers:
    """What came back."""

    good: int = 0
    bad: list[bytes] = field(default_factory=list)
    """the first lines of answers that are no 200"""
    spans_s: list[float] = field(default_factory=list)
    """from asking to the last byte of each answer"""


@dataclass
class _Client:
    socket: socket.socket
    asked_at: float = 0.0
    received: bytes = b""

    def ask(self) -> None:
        self.asked_at, self.received = time.perf_counter(), b""
        self.socket.sendall(REQUEST)

    def has_answer(self) -> bool:
        head, found, body = self.received.partition(HEAD_END)
        if not found:
            return False
        length = LENGTH.search(head + b"\r\n")
        if length is None:
            raise ValueError(f"the answer does not say how long it is: {head!r}")
        return len(body) >= int(length[1])


def load(port: int, *, clients: int, processes: int, duration_s: float) -> Answers:
    """Ask for a time.

    Args:
        port: of the server, on this machine.
        clients: how many requests are under way at a time.
        processes: how many the server has; each gets an equal share of the clients.
        duration_s: for how long new requests are made.

    Raises:
        TimeoutError: an answer took longer than ten seconds.
        ConnectionError: the server closed a connection.
        ValueError: an answer has no Content-Length.
    """
    answers = Answers()
    with selectors.DefaultSelector() as selector:
        try:
            for client in _clients(port, clients, processes):
                selector.register(client.socket, selectors.EVENT_READ, client)
            for key in selector.get_map().values():
                key.data.ask()
            _ask_again_and_again(selector, answers, time.perf_counter() + duration_s)
        finally:
            for key in list(selector.get_map().values()):
                key.data.socket.close()
    return answers


def _clients(port: int, count: int, processes: int) -> Iterator[_Client]:
    share, found = -(-count // processes), Counter[bytes]()
    for _ in range(ATTEMPTS_A_CLIENT * count):
        client = _Client(socket.create_connection(("127.0.0.1", port), ANSWER_TIMEOUT_S))
        process = _process_of(client)
        if found[process] < share:
            found[process] += 1
            yield client
        else:
            client.socket.close()
        if found.total() == count:
            return
    raise ConnectionError(f"the server's processes took {dict(found)} connections, wanted: {share} each")


def _process_of(client: _Client) -> bytes:
    client.ask()
    while not client.has_answer():
        client.received += client.socket.recv(65536)
    found = PROCESS.search(client.received)
    if found is None:
        raise ValueError(f"the answer does not say which process gave it: {client.received!r}")
    return found[1]


def _ask_again_and_again(selector: selectors.BaseSelector, answers: Answers, end: float) -> None:
    while True:
        ready = selector.select(ANSWER_TIMEOUT_S)
        if not ready:
            raise TimeoutError(f"no answer for {ANSWER_TIMEOUT_S} s")
        now = time.perf_counter()
        if now >= end:  # what is under way then is not counted
            return
        for key, _ in ready:
            _take(key.data, answers, now)


def _take(client: _Client, answers: Answers, now: float) -> None:
    data = client.socket.recv(65536)
    if not data:
        raise ConnectionError(f"the server closed a connection after {client.received[:80]!r}")
    client.received += data
    if not client.has_answer():
        return
    if client.received.startswith(b"HTTP/1.1 200"):
        answers.good += 1
        answers.spans_s.append(now - client.asked_at)
    else:
        answers.bad.append(client.received.partition(b"\r\n")[0])
    client.ask()
