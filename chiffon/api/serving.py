"""Serving: gunicorn's threads, which stay with a client while it goes on asking, and seldom let another go first."""

from __future__ import annotations

import re
import select
import socket
from typing import Any

from gunicorn.http.body import LengthReader
from gunicorn.workers.gthread import ThreadWorker

from chiffon.api.streams import SERVER_ENDS
from chiffon.garbage import spare_what_stays

_HEAD = re.compile(rb"HTTP/1\.[01] [2-5]")
STAYS = 2
"""Milliseconds for which a thread waits for the next request of its client."""

GONE_AFTER = 20_000
"""Milliseconds for which a client may leave what was sent to it unacknowledged."""


class StayingWorker(ThreadWorker):  # type: ignore[misc]  # gunicorn has no types
    """A worker whose thread answers its client's next request too, if it comes at once and nobody waits for a thread.

    In gunicorn's own, each request goes by way of the main thread, twice: to a client that sends many in turn that is a
    tenth of what a dispatch costs. And it calls the system more often than it must. Each call lets another thread have
    the interpreter, which costs more than the call.
    """

    def handle_exit(self, sig: int, frame: Any) -> None:
        """As gunicorn's, and streams end too: they would hold it up for as long as it may take."""
        SERVER_ENDS.set()
        super().handle_exit(sig, frame)

    def handle_quit(self, sig: int, frame: Any) -> None:
        """As gunicorn's, and streams end too: a process ends with the last of its threads."""
        SERVER_ENDS.set()
        super().handle_quit(sig, frame)

    def is_parent_alive(self) -> bool:
        """As gunicorn's; without its parent this process stops, so streams end too."""
        is_alive = bool(super().is_parent_alive())
        if not is_alive:
            SERVER_ENDS.set()
        return is_alive

    def run(self) -> None:
        """As gunicorn's, once the application is loaded."""
        spare_what_stays()
        super().run()

    def handle(self, conn: Any) -> Any:
        """As gunicorn's, for one request or for some; what it returns is about the last."""
        if not conn.initialized:
            _give_up_on_who_is_gone(conn.sock)
        is_kept = super().handle(conn)
        if is_kept is not True or conn.is_http2:
            return is_kept
        itself, conn.sock = conn.sock, _QuietSocket(conn.sock)
        try:
            while is_kept is True and self._has_thread_for_each() and _asks_again(itself):
                is_kept = super().handle(conn)
        finally:
            conn.sock = itself
        return is_kept

    def handle_request(self, req: Any, conn: Any) -> Any:
        """As gunicorn's. An answer is complete then, though nothing may have followed its head."""
        is_kept = super().handle_request(req, conn)
        if isinstance(conn.sock, _QuietSocket):
            conn.sock.let_go()
        return is_kept

    def _keepalive_after(self, conn: Any, keepalive: Any) -> bool:
        """As gunicorn's, which takes four calls of the system to find nothing where the application has read it all."""
        if keepalive and _was_read(conn.parser.mesg.body):
            conn.parser.mesg = None
            return True
        return bool(super()._keepalive_after(conn, keepalive))

    def _has_thread_for_each(self) -> bool:
        """Else those who stay would keep the others out."""
        return bool(self.alive and self.nr_conns <= self.cfg.threads)


class _QuietSocket:
    """A socket that calls the system less: the head of an answer is kept back until there is more to send."""

    def __init__(self, itself: Any) -> None:
        self._itself = itself
        self._head = b""

    def sendall(self, data: bytes) -> None:
        """Send all of it, but an answer's head only with what follows. (What follows a hint, 1xx, may come late.)"""
        if not self._head and data.endswith(b"\r\n\r\n") and _HEAD.match(data):
            self._head = data
        else:
            head, self._head = self._head, b""
            self._itself.sendall(head + data)

    def sendfile(self, *arguments: Any, **options: Any) -> Any:
        """Send a file, after what was kept back."""
        self.let_go()
        return self._itself.sendfile(*arguments, **options)

    def let_go(self) -> None:
        """Send what was kept back: nothing follows."""
        if self._head:
            self._itself.sendall(self._head)
            self._head = b""

    def setblocking(self, blocking: bool) -> None:
        """As the socket's, if it is not so already."""
        if blocking is not (self._itself.gettimeout() is None):
            self._itself.setblocking(blocking)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._itself, name)


def _give_up_on_who_is_gone(sock: Any) -> None:
    """Have the system cut off a client that acknowledges nothing, or takes nothing.

    Its own limit is a quarter of an hour: for so long a stream would write to a host that has gone without a word.
    """
    if hasattr(socket, "TCP_USER_TIMEOUT") and sock.family in (socket.AF_INET, socket.AF_INET6):
        sock.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, GONE_AFTER)


def _was_read(body: Any) -> bool:
    """Whether nothing is left of a message's body, as far as can be told without a look at the socket."""
    return isinstance(body.reader, LengthReader) and not (body.failed or body.reader.length or body.buf.tell())


def _asks_again(sock: Any) -> bool:
    """Whether something comes within a moment. (What TLS has decrypted already is found by gunicorn.)"""
    poll = select.poll()
    poll.register(sock, select.POLLIN)
    return bool(poll.poll(STAYS))
