"""Doorbells and odd messages for the tests of the bus, and a bare AMQP client to publish them with."""

from __future__ import annotations

import contextlib
import struct
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

from chiffon.bus.letters import Doorbell, Letter, dead_letter_for


def bell(number: int = 0, *, ring_no: int = 1, **fields: Any) -> Doorbell:
    """The doorbell of task ``number``."""
    said: dict[str, Any] = {
        "task_id": f"task-{number}",
        "ring_no": ring_no,
        "work_type": "echo",
        "queue": "work_queue",
        "priority": 3,
        "parameters": {"input": "echo test"},
        "arguments": [],
        "request_id": f"request-{number}",
        "trace_id": "0af7651916cd43dd8448eb211c80319c",
    }
    return Doorbell(**said | fields)


def dead_letter(doorbell: Doorbell, reason: str = "it said no") -> Letter:
    """The dead letter of its task, that died just now."""
    return dead_letter_for(doorbell, reason, died_at=datetime.now(UTC))


def letters(count: int) -> list[Letter]:
    """The letters of tasks 0 to ``count`` - 1."""
    return [bell(number).letter() for number in range(count)]


def ids(*sent: Letter) -> frozenset[str]:
    """Their message ids, as a receipt has them."""
    return frozenset(letter.message.message_id for letter in sent)


@contextlib.contextmanager
def bare_channel(url: str) -> Iterator[Any]:
    """A channel as any py-amqp client has it, with nothing of ours; in confirm mode."""
    parts = urlsplit(url)
    connection = amqp.Connection(
        host=f"{parts.hostname}:{parts.port or 5672}",
        userid=unquote(parts.username or "guest"),
        password=unquote(parts.password or "guest"),
        virtual_host=unquote(parts.path[1:]) or "/",
        confirm_publish=True,
        connect_timeout=10,
        read_timeout=10,
    )
    connection.connect()
    try:
        channel = connection.channel()
        channel.auto_decode = False
        yield channel
    finally:
        with contextlib.suppress(OSError, amqp.AMQPError):
            connection.close()


class RawProperties(amqp.Message):  # type: ignore[misc]
    """A message whose properties are these bytes."""

    def __init__(self, body: str | bytes, encoded: bytes) -> None:
        super().__init__(body)
        self._encoded = encoded

    def _serialize_properties(self) -> bytes:
        return self._encoded


def short(text: bytes) -> bytes:
    """An AMQP short string."""
    return bytes([len(text)]) + text


def table(*fields: tuple[bytes, bytes]) -> bytes:
    """An AMQP field table of encoded values."""
    content = b"".join(short(key) + value for key, value in fields)
    return struct.pack(">I", len(content)) + content


def nested(levels: int) -> bytes:
    """An encoded array in an array in an array."""
    value = b"t\x01"
    for _ in range(levels):
        value = b"A" + struct.pack(">I", len(value)) + value
    return value


UNREADABLE_PROPERTIES = {
    "a content type that is not UTF-8": struct.pack(">H", 0x8000) + short(b"\xff\xfe"),
    "a correlation id that is not UTF-8": struct.pack(">H", 0x0400) + short(b"caf\xe9"),
    "a message id that is not UTF-8": struct.pack(">H", 0x0080) + short(b"\xff"),
    "a date after the year 9999": struct.pack(">H", 0x2000) + table((b"at", b"T" + struct.pack(">Q", 10**12))),
    "a date that is no time_t": struct.pack(">H", 0x2000) + table((b"at", b"T" + struct.pack(">Q", 2**63))),
    "headers nested 5,000 deep": struct.pack(">H", 0x2000) + table((b"deep", nested(5000))),
}
"""What RabbitMQ takes from any client, and py-amqp raises on while it reads the socket."""
