"""A network with a round-trip time, on one machine: what comes in at one end leaves the other some time later."""

import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from threading import Event, Thread

CHUNK_BYTES = 65_536


class Relay:
    """Hands on one connection at a time to a port of this machine, and counts the round trips on it."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        """of each direction: half the round-trip time"""
        self.trips = 0
        """of the present connection, TCP's own handshake included: how often the client had to wait for the server"""
        self.is_idle = Event()
        """nothing is under way any more"""
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._end, self._told_to_end = socket.socketpair()

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def run(self) -> None:
        """Carry connections until `stop`."""
        while self._told_to_end not in select([self._listener, self._told_to_end], [], [])[0]:
            client, _ = self._listener.accept()
            self.is_idle.clear()
            # One side may close while words of the other are under way to it: an end as good as any.
            with client, suppress(ConnectionError):
                self._carry(client)
            self.is_idle.set()

    def stop(self) -> None:
        """Let `run` return when the connection that it carries is closed."""
        self._end.close()

    def close(self) -> None:
        """Give the ports back, after `run`."""
        self._told_to_end.close()
        self._listener.close()

    def _carry(self, client: socket.socket) -> None:
        self.trips = 1
        first = client.recv(CHUNK_BYTES)
        # The kernel has answered the client's handshake at once: its round trip is made up for here. And the server
        # hears of the client when the first words are there, as it would over a network, not while they are under way.
        time.sleep(3 * self.delay_s)
        with socket.create_connection(self._target) as server:
            for end in (client, server):
                end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            server.sendall(first)
            self._exchange(client, server)

    def _exchange(self, client: socket.socket, server: socket.socket) -> None:
        under_way: deque[tuple[float, socket.socket, bytes]] = deque()
        speaking, is_clients_turn = [client, server], True
        while True:
            ready = select(speaking, [], [], max(0, under_way[0][0] - time.perf_counter()) if under_way else None)[0]
            now_s = time.perf_counter()
            for end in ready:
                words = end.recv(CHUNK_BYTES)
                under_way.append((now_s + self.delay_s, server if end is client else client, words))
                if not words:
                    speaking.remove(end)
                self.trips += end is server and is_clients_turn
                is_clients_turn = end is client
            while under_way and under_way[0][0] <= now_s:
                _, listening, words = under_way.popleft()
                if not words:
                    return
                listening.sendall(words)


@contextmanager
def relay(target_port: int) -> Iterator[Relay]:
    """Run a relay to a port for the length of a block."""
    made = Relay(target_port)
    thread = Thread(target=made.run, name="relay", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.stop()
        thread.join()
        made.close()
