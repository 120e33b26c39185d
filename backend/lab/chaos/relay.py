"""A network between two programs on this machine that can fail: refuse, be silent, or lose answers."""

import socket
import struct
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from threading import Event, Lock, Thread

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)


@dataclass(eq=False)
class _Connection:
    client: socket.socket
    server: socket.socket
    is_mute: bool = False
    """answers of the server are lost"""

    def reset(self) -> None:
        for end in (self.client, self.server):
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)  # wakes its reader


class Relay:
    """Forwards any number of connections to a port of this machine."""

    def __init__(self, port: int, target_port: int) -> None:
        self._target = (HOST, target_port)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((HOST, port))
        self._listener.listen()
        self._is_closed = False
        self._mute_after: bytes | None = None
        self._accepting, self._carrying = Event(), Event()
        self._accepting.set()
        self._carrying.set()
        self._connections: set[_Connection] = set()
        self._lock = Lock()

    def run(self) -> None:
        """Accept connections until it is closed."""
        while not self._is_closed:
            self._accepting.wait()
            with suppress(OSError):  # the listener was shut down
                client, _ = self._listener.accept()
                Thread(target=self._carry, args=(client,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse new connections, and reset existing ones."""
        self._accepting.clear()
        # The port stays bound meanwhile, so that no other program takes it.
        self._listener.shutdown(socket.SHUT_RD)
        self._reset(lambda _: True)

    def fall_silent(self) -> None:
        """Accept connections but forward nothing; data that is sent meanwhile arrives after `heal`."""
        self._carrying.clear()

    def lose_answers(self, after: bytes = b"") -> None:
        """Forward the data of clients, and lose the answers of the server.

        Args:
            after: lose answers of a connection only after its client has sent this.
        """
        self._mute_after = after

    def heal(self) -> None:
        """Forward everything again; connections that have lost data are reset."""
        self._mute_after = None
        self._reset(lambda connection: connection.is_mute)
        if not self._accepting.is_set():
            self._listener.listen()
            self._accepting.set()
        self._carrying.set()

    def close(self) -> None:
        """Close it with all its connections."""
        self._is_closed = True
        self.heal()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)
        self._reset(lambda _: True)
        self._listener.close()

    def _reset(self, is_meant: Callable[[_Connection], bool]) -> None:
        with self._lock:
            for connection in filter(is_meant, self._connections):
                connection.reset()

    def _carry(self, client: socket.socket) -> None:
        with client:
            self._carrying.wait()
            try:
                server = socket.create_connection(self._target)
            except OSError:  # nothing listens there
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            with server, self._known(_Connection(client, server)) as connection:
                for end in (client, server):
                    end.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answers = Thread(target=self._forward_answers, args=(connection,), daemon=True)
                answers.start()
                self._forward_requests(connection)
                answers.join()

    @contextmanager
    def _known(self, connection: _Connection) -> Iterator[_Connection]:
        with self._lock:
            self._connections.add(connection)
        try:
            yield connection
        finally:
            with self._lock:
                self._connections.remove(connection)

    def _forward_requests(self, connection: _Connection) -> None:
        with suppress(OSError):  # one side has closed
            while data := connection.client.recv(CHUNK_BYTES):
                self._carrying.wait()
                after = self._mute_after
                if after is not None and after in data:
                    connection.is_mute = True
                connection.server.sendall(data)
        with suppress(OSError):
            connection.server.shutdown(socket.SHUT_WR)  # its answers may still be in transit

    def _forward_answers(self, connection: _Connection) -> None:
        with suppress(OSError):
            while data := connection.server.recv(CHUNK_BYTES):
                self._carrying.wait()
                if not connection.is_mute:
                    connection.client.sendall(data)
        with suppress(OSError):
            connection.client.shutdown(socket.SHUT_RDWR)  # the server has closed its side


@contextmanager
def relay(port: int, target_port: int) -> Iterator[Relay]:
    """Run a relay for the length of a block."""
    made = Relay(port, target_port)
    thread = Thread(target=made.run, name="relay", daemon=True)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()
