"""A network with a round-trip time on one machine: data leaves one end some time after it entered the other."""

import socket
import time
from collections import deque
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select
from threading import Event, Thread

CHUNK_BYTES = 65_536


class Relay:
    """Forwards one connection at a time to a port of this machine, and counts its round trips."""

    def __init__(self, target_port: int) -> None:
        self.delay_s = 0.0
        """in each direction: half the round-trip time"""
        self.trips = 0
        """how often the client of the current connection waited for the server, TCP's own handshake included"""
        self.is_idle = Event()
        """set when no data is in transit"""
        self._target = ("127.0.0.1", target_port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._end, self._stopping = socket.socketpair()

    @property
    def port(self) -> int:
        """The port on which it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def run(self) -> None:
        """Forward connections until `stop`."""
        while self._stopping not in select([self._listener, self._stopping], [], [])[0]:
            client, _ = self._listener.accept()
            self.is_idle.clear()
            # One side may close while data of the other is in transit: this ends the connection too.
            with client, suppress(ConnectionError):
                self._carry(client)
            self.is_idle.set()

    def stop(self) -> None:
        """Let `run` return when the current connection is closed."""
        self._end.close()

    def close(self) -> None:
        """Close the sockets, after `run`."""
        self._stopping.close()
        self._listener.close()

    def _carry(self, client: socket.socket) -> None:
        self.trips = 1
        first = client.recv(CHUNK_BYTES)
        # The kernel answered the client's handshake without delay, so its round trip is added here. The connection to
        # the server is opened only when the first data has arrived, as over a network, not while it is in transit.
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
