"""A way to a server on which packets can be made to vanish, as behind a firewall or a cable that was cut.

The kernel drops what arrives at a socket with a filter that lets nothing pass: nothing is acknowledged, nothing
refused, nothing reset, and no privilege and no other network is needed for it.
"""

import ctypes
import socket
import struct
import threading
from collections.abc import Callable
from contextlib import suppress

SO_ATTACH_FILTER, SO_DETACH_FILTER = 26, 27
RETURN_NOTHING = struct.pack("HBBI", 0x06, 0, 0, 0)  # BPF_RET | BPF_K: keep 0 bytes of the packet


class Way:
    """Forwards connections to a server."""

    def __init__(self, port: int) -> None:
        self._server = ("127.0.0.1", port)
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._clients: list[socket.socket] = []
        self._servers: list[socket.socket] = []
        self._filtered: list[socket.socket] = []
        self._may_forward = threading.Event()
        self._may_forward.set()
        self._threads: list[threading.Thread] = []
        self._start(self._accept)

    @property
    def port(self) -> int:
        """Where it listens."""
        port: int = self._listener.getsockname()[1]
        return port

    def drop(self) -> None:
        """Let every packet to the server vanish, those that ask for a new connection included."""
        program = ctypes.create_string_buffer(RETURN_NOTHING)
        filter_ = struct.pack("HL", 1, ctypes.addressof(program))
        self._filtered = [self._listener, *self._clients]
        for end in self._filtered:
            end.setsockopt(socket.SOL_SOCKET, SO_ATTACH_FILTER, filter_)

    def freeze(self) -> None:
        """Take packets, and let the server never answer."""
        self._may_forward.clear()

    def restore(self) -> None:
        """Let packets pass again."""
        self._may_forward.set()
        for end in self._filtered:
            end.setsockopt(socket.SOL_SOCKET, SO_DETACH_FILTER, 0)

    def close(self) -> None:
        """Break every connection."""
        self._may_forward.set()
        ends = [self._listener, *self._clients, *self._servers]
        for end in ends:
            with suppress(OSError):  # the other side may have gone first
                end.shutdown(socket.SHUT_RDWR)
        for thread in self._threads:
            thread.join()
        for end in ends:
            end.close()

    def _start(self, target: Callable[..., None], *args: socket.socket) -> None:
        self._threads.append(threading.Thread(target=target, args=args, daemon=True))
        self._threads[-1].start()

    def _accept(self) -> None:
        while True:
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            server = socket.create_connection(self._server)
            self._clients.append(client)
            self._servers.append(server)
            self._start(self._forward, client, server)
            self._start(self._forward, server, client)

    def _forward(self, source: socket.socket, target: socket.socket) -> None:
        with suppress(OSError):
            while data := source.recv(65536):
                self._may_forward.wait()
                target.sendall(data)
        with suppress(OSError):
            target.shutdown(socket.SHUT_RDWR)
