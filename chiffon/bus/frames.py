"""Frames that py-amqp cannot read are mended, so that one odd message does not end a connection.

py-amqp decodes a message's properties while it reads the socket. RabbitMQ (3.10 and 4.3 alike) accepts what py-amqp
then raises on: text that is not UTF-8, a date after the year 9999, headers nested 1,500 deep, a routing key of any
bytes. The error comes out of ``drain_events``, ends the worker, and the message, requeued, ends the next one.
Rejecting a mended message dead-letters the original bytes: only our copy is mended.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Iterator
from typing import Any

import amqp
from amqp import method_framing, spec
from amqp.serialization import decode_properties_basic, dumps, loads

UNREADABLE = "chiffon_unreadable"
"""The header that a mended message carries: what could not be read of it."""

Frame = tuple[int, int, bytes]
"""An AMQP frame: its type, its channel, its payload."""

_METHOD, _CONTENT_HEADER = 1, 2
_ARGUMENTS = {
    struct.pack(">HH", *spec.Basic.Deliver): "sLbss",
    struct.pack(">HH", *spec.Basic.GetOk): "Lbssl",
    struct.pack(">HH", *spec.Basic.Return): "Bsss",
}
_WIDTHS = {"b": 1, "o": 1, "B": 2, "l": 4, "L": 8}  # of arguments and properties
_FIXED = dict(zip("tbBsUuIifLldTDV", (1, 1, 1, 2, 2, 2, 4, 4, 4, 8, 8, 8, 8, 5, 0), strict=True))  # of values in tables
_MEASURED = frozenset("SxAF")  # these begin with their length
_CANNOT_READ = (
    ValueError,  # not UTF-8; a date after the year 9999
    OverflowError,  # a date that is no `time_t`
    OSError,  # the same on some platforms; as a "connection error" it would be answered by reconnecting for ever
    RecursionError,  # tables in tables: 1,500 levels fit into 10 KB
    LookupError,
    TypeError,
    struct.error,
    amqp.AMQPError,
)


def frame_handler(connection: Any, callback: Callable[..., Any]) -> Callable[[Frame], bool]:
    """py-amqp's frame handler, over frames that it can read: for ``amqp.Connection(frame_handler=...)``.

    kombu passes it on from its ``transport_options``.
    """
    on_frame = method_framing.frame_handler(connection, callback)

    def read(frame: Frame) -> bool:
        kind, channel, payload = frame
        if kind == _METHOD:
            return bool(on_frame((kind, channel, _with_legible_names(payload))))
        if kind != _CONTENT_HEADER:
            return bool(on_frame(frame))
        try:
            return bool(on_frame(frame))
        except _CANNOT_READ:
            mended = _mended_properties(payload)
            if mended is None:  # readable: for an empty body py-amqp delivers here, and the receiver raised
                raise
            return bool(on_frame((kind, channel, mended)))

    return read


def _with_legible_names(payload: bytes) -> bytes:
    """A method frame that brings a message, with any undecodable exchange or routing key turned to ``?``."""
    arguments = _ARGUMENTS.get(bytes(payload[:4]))
    if arguments is None or payload.isascii():
        return payload
    try:
        loads(arguments, payload, 4)
    except UnicodeDecodeError:
        return _legible(arguments, payload)
    return payload


def _legible(arguments: str, payload: bytes) -> bytes:
    frame, at = bytearray(payload), 4
    for kind in arguments:
        if kind == "s":
            start, at = at + 1, at + 1 + payload[at]
            frame[start:at] = bytes(byte if byte < 0x80 else 0x3F for byte in payload[start:at])  # as long as before
        else:
            at += _WIDTHS[kind]
    return bytes(frame)


def _mended_properties(payload: bytes) -> bytes | None:
    """A content header frame that says what could be read of ``payload``; None when all of it can be."""
    try:
        decode_properties_basic(payload, 12)
    except _CANNOT_READ as error:
        problem = f"{type(error).__name__}: {error}"
    else:
        return None
    flags, at = struct.unpack_from(">H", payload, 12)[0], 14
    encoded = b""
    for position, (name, kind) in enumerate(amqp.Message.PROPERTIES):
        end = _end(kind, payload, at) if flags & 1 << 15 - position else at
        if name == "application_headers":
            encoded += _mended_headers(payload[at:end], problem)
            flags |= 1 << 15 - position
        elif kind == "s":
            encoded += _mended_text(payload[at:end])
        else:
            encoded += payload[at:end]
        at = end
    return bytes(payload[:12]) + struct.pack(">H", flags) + encoded


def _end(kind: str, payload: bytes, at: int) -> int:
    """Where the property of that kind, which begins at ``at``, ends."""
    if kind == "s":
        return at + 1 + payload[at]
    if kind == "F":
        return at + 4 + int(struct.unpack_from(">I", payload, at)[0])
    return at + _WIDTHS[kind]


def _mended_text(encoded: bytes) -> bytes:
    """A short string (or nothing at all) in which each undecodable character has become a ``?``: never longer."""
    text = encoded[1:].decode(errors="replace").replace("\ufffd", "?").encode()
    return encoded[:1] and bytes([len(text)]) + text


def _mended_headers(encoded: bytes, problem: str) -> bytes:
    """A table (or nothing at all) with those fields of ``encoded`` that can be read, and what was wrong."""
    content = b"".join(field for field in _fields(encoded[4:]) if _can_be_read(field))
    content += bytes(dumps("F", [{UNREADABLE: problem}]))[4:]
    return struct.pack(">I", len(content)) + content


def _fields(content: bytes) -> Iterator[bytes]:
    """The fields of a table, each as its encoded name and value; what follows one of no known type is left out."""
    at = 0
    while at < len(content):
        value = at + 1 + content[at] + 1
        kind = chr(content[value - 1])
        if kind in _MEASURED:
            end = value + 4 + int(struct.unpack_from(">I", content, value)[0])
        elif kind in _FIXED:
            end = value + _FIXED[kind]
        else:
            return
        yield content[at:end]
        at = end


def _can_be_read(field: bytes, room: int = 20) -> bool:
    """Whether py-amqp can read the field, with ``room`` frames of Python's stack to spare."""
    if room:
        return _can_be_read(field, room - 1)
    try:
        loads("F", struct.pack(">I", len(field)) + field, 0)
    except _CANNOT_READ:
        return False
    return True
