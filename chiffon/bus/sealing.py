"""A letter as bytes: the frames of one `basic.publish`, so that many letters go to the broker in one write.

py-amqp encodes headers field by field, and writes each message by itself: of what a ring costs that was half. The bytes
here are the same; whatever is no text, number or nothing is still encoded by py-amqp.
"""

from __future__ import annotations

import struct
from collections.abc import Mapping
from functools import lru_cache
from typing import Any

import amqp
from amqp import spec
from amqp.serialization import dumps

from chiffon.bus.letters import Letter, Message
from chiffon.domain.errors import MalformedMessage

FRAME_OVERHEAD = 8
"""Bytes of a frame beside its payload."""

_METHOD, _CONTENT_HEADER, _BODY = 1, 2, 3
_END = b"\xce"
_PUBLISH = struct.pack(">HHH", *spec.Basic.Publish, 0)  # and a field that AMQP 0-9-1 has reserved
_MANDATORY = b"\x01"
_CONTENT = 14
"""Bytes of a content header before its properties, the flags included."""

_SHORT = 255
"""Bytes of a short string, at most."""

_REPEATED = frozenset({"lang", "origin", "task"})
"""Fields that say the same in many messages."""

_CANNOT_ENCODE = (struct.error, ValueError, TypeError, AttributeError, OverflowError, RecursionError, amqp.AMQPError)
_MOST_INTEGER = 2**31 - 1

_FRAME_HEAD, _CONTENT_HEAD = struct.Struct(">BHI").pack, struct.Struct(">HHQH").pack
_LONG, _SIGNED_LONG = struct.Struct(">I").pack, struct.Struct(">i").pack
_PROPERTIES = tuple((name, kind, 1 << 15 - place) for place, (name, kind) in enumerate(amqp.Message.PROPERTIES))
"""Each with its flag, in the order in which they are encoded."""


def seal(letter: Letter, *, channel: int, frame_max: int) -> bytes:
    """The frames that publish a letter, `mandatory`.

    Args:
        letter: what, and where to.
        channel: the number of the channel.
        frame_max: bytes of a frame, at most, as it was agreed with the broker.

    Raises:
        MalformedMessage: AMQP has no words for it; nothing of it may be written.
    """
    message = letter.message
    try:
        method = _PUBLISH + _short_string(letter.exchange) + _short_string(letter.routing_key) + _MANDATORY
        header = _content_header(message)
    except _CANNOT_ENCODE as error:
        raise MalformedMessage(f"AMQP has no words for the message {message.message_id}: {error}") from error
    room = frame_max - FRAME_OVERHEAD
    if len(header) > room:  # headers cannot be split; the broker would hang up
        raise MalformedMessage(f"the headers of {message.message_id} are larger than a frame ({frame_max} bytes)")
    frames = [_frame(_METHOD, channel, method), _frame(_CONTENT_HEADER, channel, header)]
    body = message.body
    frames += [_frame(_BODY, channel, body[at : at + room]) for at in range(0, len(body), room)]
    return b"".join(frames)


def _frame(kind: int, channel: int, payload: bytes) -> bytes:
    return _FRAME_HEAD(kind, channel, len(payload)) + payload + _END


def _content_header(message: Message) -> bytes:
    flags, encoded = 0, []
    properties = {**message.properties, "application_headers": message.headers, "message_id": message.message_id}
    for name, kind, flag in _PROPERTIES:
        value = properties.get(name)
        if value is None:
            continue
        flags |= flag
        if kind == "s":
            encoded.append(_short_string(value))
        elif kind == "F":
            encoded.append(_table(value))
        else:
            encoded.append(bytes((value,)) if kind == "o" and type(value) is int else dumps(kind, [value]))
    return _CONTENT_HEAD(spec.Basic.CLASS_ID, 0, len(message.body), flags) + b"".join(encoded)


def _table(fields: Mapping[str, Any]) -> bytes:
    content: list[bytes] = []
    for name, value in fields.items():
        if type(value) is str:
            content.append(_repeated(name, value) if name in _REPEATED else _text(name, value))
        elif value is None or type(value) is int:
            content.append(_number(name, value))
        else:
            content.append(_anything(name, value))
    joined = b"".join(content)
    return _LONG(len(joined)) + joined


def _text(name: str, value: str) -> bytes:
    data = _encoded(value)
    return _named(name, b"S") + _LONG(len(data)) + data


_repeated = lru_cache(maxsize=256)(_text)


@lru_cache(maxsize=1024)
def _number(name: str, value: int | None) -> bytes:
    if value is None:
        return _named(name, b"V")
    if -_MOST_INTEGER <= value <= _MOST_INTEGER:
        return _named(name, b"I") + _SIGNED_LONG(value)
    return _anything(name, value)


def _anything(name: str, value: Any) -> bytes:
    encoded: bytes = dumps("F", [{name: value}])
    return encoded[4:]  # without its length


@lru_cache(maxsize=1024)
def _named(name: str, kind: bytes) -> bytes:
    """How a field begins: the same few come again and again."""
    return _short_string(name) + kind


def _short_string(text: str) -> bytes:
    data = _encoded(text)
    if len(data) > _SHORT:
        raise ValueError(f"a name of {len(data)} bytes, where AMQP has {_SHORT}")
    return bytes((len(data),)) + data


def _encoded(text: str) -> bytes:
    try:
        return text.encode()
    except UnicodeEncodeError:
        return text.encode(errors="surrogatepass")
