"""A TCP proxy on loopback that loses what it is told to lose: answers above all, when they would have said yes."""

from __future__ import annotations

import contextlib
import select
import socket
import threading
from types import TracebackType
from typing import Self
from urllib.parse import urlsplit, urlunsplit

CHUNK = 65_536
_TICK = 0.05


class Proxy:
    """Stands before a server, as a context manager, and passes everything on until it is told otherwise.

    ``lose_answer_to``: bytes; the first request that has them in it reaches the server, its answer reaches nobody, and
    the connection is cut. ``cut_at``: bytes; the first request that has them in it reaches nobody either.
    """

    def __init__(self, host: str, port: int) -> None:
        self._server = host, port
        self._listener = socket.create_server(("127.0.0.1", 0))
        self.port = int(self._listener.getsockname()[1])
        self._open: set[socket.socket] = set()
        self._lock = threading.Lock()
        self._closing = threading.Event()
        self.lose_answer_to: bytes | None = None
        self.cut_at: bytes | None = None
        self.refuse = False
        self.cuts = 0

    @classmethod
    def before(cls, url: str) -> Proxy:
        """A proxy before the server of a URL."""
        parts = urlsplit(url)
        assert parts.hostname is not None
        assert parts.port is not None
        return cls(parts.hostname, parts.port)

    def url(self, behind: str) -> str:
        """The URL of the same thing, through the proxy."""
        return through(self.port, behind)

    def cut(self) -> None:
        """End every connection, now."""
        with self._lock:
            sockets, self._open = self._open, set()
        for one in sockets:
            with contextlib.suppress(OSError):
                one.shutdown(socket.SHUT_RDWR)

    def __enter__(self) -> Self:
        threading.Thread(target=self._accept, name="proxy", daemon=True).start()
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self._closing.set()
        self._listener.close()
        self.cut()

    def _accept(self) -> None:
        while not self._closing.is_set():
            try:
                client, _ = self._listener.accept()
            except OSError:
                return
            if self.refuse:
                client.close()
                continue
            threading.Thread(target=self._carry, args=(client,), daemon=True).start()

    def _carry(self, client: socket.socket) -> None:
        """Pass bytes both ways until one side ends, or something is to be lost."""
        with contextlib.suppress(OSError), client, socket.create_connection(self._server) as server:
            with self._lock:
                self._open |= {client, server}
            try:
                while not self._closing.is_set():
                    for source in select.select([client, server], [], [], _TICK)[0]:
                        data = source.recv(CHUNK)
                        if not data:
                            return
                        if source is server:
                            client.sendall(data)
                        elif self._is_lost(data, server):
                            return
            finally:
                with self._lock:
                    self._open -= {client, server}

    def _is_lost(self, request: bytes, server: socket.socket) -> bool:
        """Hand a request on. Whether the connection is to end here."""
        if self.cut_at is not None and self.cut_at in request:
            self.cut_at = None
            self.cuts += 1
            return True
        server.sendall(request)
        if self.lose_answer_to is not None and self.lose_answer_to in request:
            self.lose_answer_to = None
            self.cuts += 1
            select.select([server], [], [], 10)  # the answer is there: it has happened
            server.recv(CHUNK)
            return True
        return False


def through(port: int, behind: str) -> str:
    """The URL of the same thing, through whatever listens on ``port`` of loopback."""
    parts = urlsplit(behind)
    credentials, at, _ = parts.netloc.rpartition("@")
    return urlunsplit(parts._replace(netloc=f"{credentials}{at}127.0.0.1:{port}"))
