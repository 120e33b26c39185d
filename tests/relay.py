"""A proxy in front of PostgreSQL that drops responses to COMMIT, as if the server or the network failed then."""

import socket
import struct
import threading
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from select import select

COMMIT = b"COMMIT\0"
PIECE_BYTES = 65_536
POLL_INTERVAL_S = 0.1


class Relay:
    """Forward connections to PostgreSQL, and close some of them after their COMMIT has been forwarded."""

    def __init__(self, target_port: int, service: str) -> None:
        """Listen on a free port.

        Args:
            target_port: the port of PostgreSQL.
            service: the beginning of application_name of the connections to close.
        """
        self._target_port = target_port
        self._service = service.encode()
        self._listener = socket.create_server(("127.0.0.1", 0))
        self._listener.settimeout(POLL_INTERVAL_S)
        self._is_closed = False
        self.commits_to_lose = 0
        """number of the next COMMITs whose response is dropped"""

    @property
    def port(self) -> int:
        """Return the port of the proxy."""
        return int(self._listener.getsockname()[1])

    def run(self) -> None:
        """Forward connections, each on a thread, until `close`."""
        carrying = []
        while not self._is_closed:
            with suppress(TimeoutError):
                client, _ = self._listener.accept()
                carrying.append(threading.Thread(target=self._carry, args=(client,)))
                carrying[-1].start()
        for thread in carrying:
            thread.join()
        self._listener.close()

    def close(self) -> None:
        """Accept no further connections, and close the open ones."""
        self._is_closed = True

    def _carry(self, client: socket.socket) -> None:
        with suppress(OSError), client, socket.create_connection(("127.0.0.1", self._target_port)) as server:
            may_be_cut = False
            while not self._is_closed:
                for end in select([client, server], [], [], POLL_INTERVAL_S)[0]:
                    if not (words := end.recv(PIECE_BYTES)):
                        return
                    (server if end is client else client).sendall(words)
                    # The startup message contains application_name; an SSLRequest may precede it.
                    may_be_cut = may_be_cut or (end is client and self._service in words)
                    if may_be_cut and words == _query(COMMIT) and self.commits_to_lose:
                        self.commits_to_lose -= 1
                        client.close()
                        server.recv(PIECE_BYTES)  # the response: the COMMIT has completed
                        return


def _query(text: bytes) -> bytes:
    """Return the message of a simple query. https://www.postgresql.org/docs/17/protocol-message-formats.html"""
    return b"Q" + struct.pack("!I", len(text) + 4) + text


@contextmanager
def relay(target_port: int, service: str) -> Iterator[Relay]:
    """Run a relay during a block."""
    made = Relay(target_port, service)
    thread = threading.Thread(target=made.run)
    thread.start()
    try:
        yield made
    finally:
        made.close()
        thread.join()
