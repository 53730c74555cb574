"""Reading from the broker in gulps: all that has come with one look at the socket.

py-amqp asks the socket for each frame's head, payload and end by themselves, and kombu makes it non-blocking and
blocking again around each frame, and goes once around the event loop for each message.
"""

from __future__ import annotations

import socket
import struct
from typing import Any

from amqp.exceptions import RecoverableConnectionError, UnexpectedFrame
from amqp.transport import TCPTransport

from chiffon.bus.frames import Frame

SIZE = 8 * 1024
"""Bytes of a gulp, at most: some thirty doorbells. For the rest the event loop comes again."""

_HEAD = struct.Struct(">BHI")
_END = 0xCE


def watch(connection: Any, hub: Any) -> None:
    """Have an event loop read a connection whenever something has come; ``connection``, ``hub``: kombu's.

    One that is encrypted is read as kombu does: where its socket has nothing more, some may be decrypted already.
    """
    inner = connection.connection
    if type(inner.transport) is TCPTransport:
        hub.add_reader(inner.sock, read, inner)
    else:
        connection.transport.register_with_event_loop(inner, hub)


def read(connection: Any) -> None:
    """Take a gulp, without waiting, and deal with every frame that is whole by now. ``connection``: py-amqp's.

    Raises OSError or py-amqp's errors when the connection is gone or makes no sense, and whatever a frame leads to.
    """
    if not connection.connected:
        raise RecoverableConnectionError("the connection to the broker is gone")
    transport = connection.transport
    try:
        came = transport.sock.recv(SIZE, socket.MSG_DONTWAIT)
        if not came:
            raise ConnectionResetError("the broker has closed the connection")
    except (BlockingIOError, InterruptedError):
        return
    except OSError:
        transport.connected = False
        raise
    transport._read_buffer += came
    while (frame := _next(transport)) is not None:
        connection.on_inbound_frame(frame)


def _next(transport: Any) -> Frame | None:
    """Take the next whole frame; the rest stays where py-amqp looks first when a frame makes it wait for another."""
    data = transport._read_buffer
    if len(data) < _HEAD.size:
        return None
    kind, channel, size = _HEAD.unpack_from(data)
    end = _HEAD.size + size
    if len(data) <= end:
        return None
    if data[end] != _END:
        raise UnexpectedFrame(f"a frame ends with {data[end]:#04x}, and not with 0xce")
    transport._read_buffer = data[end + 1 :]
    return kind, channel, data[_HEAD.size : end]
