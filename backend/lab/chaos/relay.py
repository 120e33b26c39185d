"""A network between two programs of this machine that can be taken away: refused, silent, or without answers."""

import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from threading import Event, Lock, Thread

HOST = "127.0.0.1"
CHUNK_BYTES = 65_536
RESET = struct.pack("ii", 1, 0)


class Relay:
    """Carries any number of connections to a port of this machine."""

    def __init__(self, port: int, target_port: int) -> None:
        self._target = (HOST, target_port)
        self._listener = socket.socket()
        self._listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        self._listener.bind((HOST, port))
        self._listener.listen()
        self._is_closed = False
        self._is_mute = False
        self._accepting, self._carrying = Event(), Event()
        self._accepting.set()
        self._carrying.set()
        self._ends: set[socket.socket] = set()
        self._lock = Lock()

    def run(self) -> None:
        """Accept connections until it is closed."""
        while not self._is_closed:
            self._accepting.wait()
            with suppress(OSError):  # it stopped listening
                client, _ = self._listener.accept()
                Thread(target=self._carry, args=(client,), daemon=True).start()

    def refuse(self) -> None:
        """Refuse new connections, and reset those that there are."""
        self._accepting.clear()
        # The port stays bound meanwhile, so that no other program takes it.
        self._listener.shutdown(socket.SHUT_RD)
        self.cut()

    def fall_silent(self) -> None:
        """Accept connections and carry nothing; what is sent meanwhile arrives afterwards."""
        self._carrying.clear()

    def lose_answers(self) -> None:
        """Carry what clients send, and lose what the server answers."""
        self._is_mute = True

    def heal(self) -> None:
        """Carry everything again; connections that have lost something are reset."""
        with self._lock:  # a new connection waits for it
            if self._is_mute:
                self._reset_all()
            self._is_mute = False
        if not self._accepting.is_set():
            self._listener.listen()
            self._accepting.set()
        self._carrying.set()

    def close(self) -> None:
        """End it with all its connections."""
        self._is_closed = True
        self.heal()
        with suppress(OSError):
            self._listener.shutdown(socket.SHUT_RD)
        self.cut()
        self._listener.close()

    def cut(self) -> None:
        """Reset every connection."""
        with self._lock:
            self._reset_all()

    def _reset_all(self) -> None:
        for end in self._ends:
            with suppress(OSError):
                end.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                end.shutdown(socket.SHUT_RDWR)  # which wakes its reader

    def _carry(self, client: socket.socket) -> None:
        with client:
            client.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
            self._carrying.wait()
            try:
                server = socket.create_connection(self._target)
            except OSError:  # nothing listens there
                client.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, RESET)
                return
            with server, self._known(client, server):
                server.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
                answers = Thread(target=self._pump, args=(server, client), kwargs={"are_answers": True}, daemon=True)
                answers.start()
                self._pump(client, server, are_answers=False)
                answers.join()

    @contextmanager
    def _known(self, *ends: socket.socket) -> Iterator[None]:
        with self._lock:
            self._ends.update(ends)
        try:
            yield
        finally:
            with self._lock:
                self._ends.difference_update(ends)

    def _pump(self, source: socket.socket, sink: socket.socket, *, are_answers: bool) -> None:
        with suppress(OSError):  # one side is gone
            while data := source.recv(CHUNK_BYTES):
                self._carrying.wait()
                if not (are_answers and self._is_mute):
                    sink.sendall(data)
        with suppress(OSError):
            # The answers may still be under way when the client has said all; without a server there is nothing to say.
            sink.shutdown(socket.SHUT_RDWR if are_answers else socket.SHUT_WR)


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
