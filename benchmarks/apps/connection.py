"""An HTTP client that costs little: the processors are shared with what it measures."""

from __future__ import annotations

import json
import os
import socket
from typing import Any
from urllib.parse import urlsplit


class Connection:
    """One connection that stays open, to the API at ``url``."""

    def __init__(self, url: str) -> None:
        parts = urlsplit(url)
        self._host = parts.netloc
        self._socket = socket.create_connection((parts.hostname or "", parts.port or 80))
        self._socket.setsockopt(socket.IPPROTO_TCP, socket.TCP_NODELAY, 1)
        self._left = b""

    def post(self, path: str, content: Any, *headers: str) -> tuple[int, bytes]:
        """Send JSON; return the status and the body."""
        body = json.dumps(content).encode()
        return self._exchange("POST", path, body, "Content-Type: application/json", *headers)

    def get(self, path: str) -> tuple[int, bytes]:
        """Ask; return the status and the body."""
        return self._exchange("GET", path, b"")

    def _exchange(self, method: str, path: str, body: bytes, *headers: str) -> tuple[int, bytes]:
        lines = (
            f"{method} {path} HTTP/1.1",
            f"Host: {self._host}",
            f"Authorization: Bearer {os.environ['BENCH_API_KEY']}",
            f"Content-Length: {len(body)}",
            *headers,
        )
        self._socket.sendall("\r\n".join((*lines, "", "")).encode() + body)
        head, length = self._head()
        while len(self._left) < length:
            self._receive()
        body, self._left = self._left[:length], self._left[length:]
        return int(head.split(b" ", 2)[1]), body

    def _head(self) -> tuple[bytes, int]:
        while (end := self._left.find(b"\r\n\r\n")) < 0:
            self._receive()
        head, self._left = self._left[:end], self._left[end + 4 :]
        length = next(line for line in head.lower().split(b"\r\n") if line.startswith(b"content-length:"))
        return head, int(length.partition(b":")[2])

    def _receive(self) -> None:
        received = self._socket.recv(65536)
        if not received:
            raise ConnectionError("the API closed the connection")
        self._left += received
