"""One HTTP request to one of the addresses that were checked, and its answer, before a deadline."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from dataclasses import dataclass
from http.client import HTTPException

from urllib3.connection import HTTPConnection, HTTPSConnection
from urllib3.exceptions import HTTPError

from workers.destination import Address, Destination

_PIECE = 65536


class RequestFailed(Exception):
    """No whole answer came: no connection, a broken one, or none in time. The retry policy decides what follows."""


@dataclass(frozen=True)
class Request:
    """What is sent. ``headers`` has neither ``Host`` nor ``Content-Length``: they follow from the rest."""

    method: str
    target: Destination
    headers: Mapping[str, str]
    body: bytes | None


@dataclass(frozen=True)
class Response:
    """What came back. ``headers`` in lower case; ``body`` with any content coding undone, ``truncated`` if cut."""

    status: int
    headers: Mapping[str, str]
    body: bytes
    truncated: bool


@dataclass(frozen=True)
class Deadline:
    """A moment of the monotonic clock, ``seconds`` after it was set."""

    seconds: float
    at: float

    @classmethod
    def after(cls, seconds: float) -> Deadline:
        """The deadline that many seconds from now."""
        return cls(seconds, time.monotonic() + seconds)

    def left(self) -> float:
        """Seconds left, > 0. Raises RequestFailed when there are none."""
        if (left := self.at - time.monotonic()) <= 0:
            raise RequestFailed(f"there was no answer within {self.seconds:g} seconds")
        return left


def exchange(request: Request, addresses: Sequence[Address], deadline: Deadline, *, max_body: int) -> Response:
    """Send the request once and read the answer, at most ``max_body`` bytes of its body.

    Raises:
        RequestFailed: there was no whole answer in time.
    """
    try:
        connection = _connect(request.target, addresses, deadline)
        try:
            with _cut_off(connection, deadline):
                return _converse(connection, request, max_body)
        finally:
            connection.close()
    except (HTTPError, HTTPException, OSError) as error:
        raise RequestFailed(f"{request.method} {request.target.shown}: {error}") from error


def _connect(target: Destination, addresses: Sequence[Address], deadline: Deadline) -> HTTPConnection:
    """A connection to the first address that takes one. The certificate must be the name's, not the address's."""
    failure: Exception = OSError(f"{target.name!r} has no address")
    for index, address in enumerate(addresses):
        timeout = deadline.left() / (len(addresses) - index)
        connection = (
            HTTPSConnection(str(address), target.port, timeout=timeout, server_hostname=target.name)
            if target.scheme == "https"
            else HTTPConnection(str(address), target.port, timeout=timeout)
        )
        try:
            connection.connect()
        except (HTTPError, OSError) as error:
            connection.close()
            failure = error
        else:
            connection.timeout = deadline.left()
            return connection
    raise failure


@contextmanager
def _cut_off(connection: HTTPConnection, deadline: Deadline) -> Iterator[None]:
    """Cut the connection at the deadline: a timeout on each read would let a server drip for ever."""
    sock = connection.sock
    is_late = threading.Event()

    def cut() -> None:
        is_late.set()
        with suppress(OSError):
            # TLS's own shutdown would take the session away under the thread that reads.
            socket.socket.shutdown(sock, socket.SHUT_RDWR)

    timer = threading.Timer(deadline.left(), cut)
    timer.daemon = True
    timer.start()
    try:
        yield
    except (HTTPError, HTTPException, OSError):
        if not is_late.is_set():
            raise
    finally:
        timer.cancel()
    if is_late.is_set():
        raise TimeoutError(f"there was no whole answer within {deadline.seconds:g} seconds")


def _converse(connection: HTTPConnection, request: Request, max_body: int) -> Response:
    headers = {**request.headers, "Host": request.target.host_header}
    connection.request(request.method, request.target.path, body=request.body, headers=headers, preload_content=False)
    answer = connection.getresponse()
    body = bytearray()
    while len(body) <= max_body and (piece := answer.read(_PIECE, decode_content=True)):
        body += piece
    return Response(
        status=answer.status,
        headers={name.lower(): value for name, value in answer.headers.items()},
        body=bytes(body[:max_body]),
        truncated=len(body) > max_body,
    )
