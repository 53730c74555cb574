"""Reads back what is written to a broker, with py-amqp alone."""

from __future__ import annotations

import struct

import amqp
from amqp.serialization import loads

Routed = tuple[tuple[str, str, bool], amqp.Message]
"""A published message, after its exchange, its routing key and whether it is mandatory."""

_PUBLISH = (60, 40)
_END = 0xCE


def publishes(frames: bytes) -> list[Routed]:
    """The messages of some whole frames, each with where it goes."""
    found: list[Routed] = []
    at = 0
    while at < len(frames):
        kind, _, size = struct.unpack_from(">BHI", frames, at)
        payload, at = frames[at + 7 : at + 7 + size], at + 8 + size
        assert frames[at - 1] == _END
        if kind == 1:
            assert struct.unpack_from(">HH", payload) == _PUBLISH
            (_, exchange, routing_key, mandatory, _), _ = loads("Bssbb", payload, 4)
            found.append(((exchange, routing_key, mandatory), _arriving()))
        elif kind == 2:
            found[-1][1].inbound_header(payload)
        else:
            found[-1][1].inbound_body(payload)
    return found


def _arriving() -> amqp.Message:
    message = amqp.Message(b"")
    message._pending_chunks, message.body_received = [], 0
    return message
