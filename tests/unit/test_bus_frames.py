"""Whatever bytes a message's properties are, its frame is read, and the frames after it."""

from __future__ import annotations

import struct
from decimal import Decimal
from types import SimpleNamespace
from typing import Any

import amqp
import pytest
from amqp import spec
from amqp.serialization import dumps
from hypothesis import given
from hypothesis import strategies as st

from chiffon.bus.frames import UNREADABLE, frame_handler
from tests.bells import UNREADABLE_PROPERTIES, nested, short, table


class Reader:
    """The frame handler of one connection, and what it handed on."""

    def __init__(self) -> None:
        self.handed_on: list[tuple[Any, bytes, Any]] = []
        self.handler = frame_handler(SimpleNamespace(bytes_recv=0), self._receive)

    def _receive(self, channel: int, method: Any, arguments: bytes, message: Any) -> None:
        self.handed_on.append((method, arguments, message))

    def deliver(self, encoded: bytes, body: bytes = b"body", routing_key: bytes = b"work_queue") -> Any:
        arguments = short(b"tag") + struct.pack(">Q", 200) + b"\x00" + short(b"work") + short(routing_key)
        self.handler((1, 1, struct.pack(">HH", *spec.Basic.Deliver) + arguments))
        self.handler((2, 1, struct.pack(">HxxQ", 60, len(body)) + encoded))
        if body:
            self.handler((3, 1, body))
        return self.handed_on[-1]


@pytest.mark.parametrize("name", UNREADABLE_PROPERTIES)
def test_unreadable_properties_are_mended_and_said(name: str) -> None:
    reader = Reader()
    for body in (b"body", b""):
        method, _, message = reader.deliver(UNREADABLE_PROPERTIES[name], body)
        assert method == spec.Basic.Deliver
        assert (message.body or b"") == body
        assert UNREADABLE in message.properties["application_headers"]
    _, _, next_one = reader.deliver(struct.pack(">H", 0x0400) + short(b"fine"))
    assert next_one.properties == {"correlation_id": "fine"}


def test_what_can_be_read_beside_it_is_kept() -> None:
    encoded = struct.pack(">H", 0xE800) + short(b"caf\xe9") + short(b"utf-8") + table((b"a", b"t\x01")) + b"\x05"
    properties = Reader().deliver(encoded)[2].properties
    assert properties["content_type"] == "caf?"
    assert properties["content_encoding"] == "utf-8"
    assert properties["priority"] == 5
    assert properties["application_headers"].pop(UNREADABLE).startswith("UnicodeDecodeError")
    assert properties["application_headers"] == {"a": True}


def test_of_a_table_every_field_that_can_be_read_is_kept() -> None:
    fields = {"a": "text", "b": True, "c": None, "d": 1.5, "e": 2**40, "f": [1, {"x": "y"}], "g": Decimal("1.5")}
    account = {"x-death": [{"reason": "rejected"}]}
    content = dumps("F", [fields])[4:] + table((b"deep", nested(5000)))[4:] + dumps("F", [account])[4:]
    headers = Reader().deliver(struct.pack(">HI", 0x2000, len(content)) + content)[2].properties["application_headers"]
    assert "RecursionError" in headers.pop(UNREADABLE)
    assert headers == fields | account


def test_a_readable_message_is_left_alone() -> None:
    encoded = amqp.Message(content_type="é", application_headers={"a": [1, {"b": None}]})._serialize_properties()
    assert Reader().deliver(encoded)[2].properties == {
        "content_type": "é",
        "application_headers": {"a": [1, {"b": None}]},
    }


@pytest.mark.parametrize("key", [b"\xff\xfe", "ключ".encode(), b"work_queue", b""])
def test_any_routing_key_can_be_decoded_afterwards(key: bytes) -> None:
    _, arguments, _ = Reader().deliver(b"\x00\x00", routing_key=key)
    expected = key if key != b"\xff\xfe" else b"??"
    assert arguments.endswith(short(expected))
    assert struct.pack(">Q", 200) in arguments


def test_an_error_of_the_receiver_is_not_taken_for_one_of_the_frame() -> None:
    def receive(*arguments: Any) -> None:
        raise ValueError("the receiver's own")

    handler = frame_handler(SimpleNamespace(bytes_recv=0), receive)
    arguments = dumps("sLbss", ("tag", 1, False, "work", "work_queue"))
    handler((1, 1, struct.pack(">HH", *spec.Basic.Deliver) + arguments))
    with pytest.raises(ValueError, match="the receiver's own"):
        handler((2, 1, struct.pack(">HxxQ", 60, 0) + b"\x00\x00"))


KINDS = {"s": st.binary(max_size=255).map(short), "o": st.binary(min_size=1, max_size=1)}
VALUES = st.one_of(
    st.binary(max_size=20).map(lambda text: b"S" + struct.pack(">I", len(text)) + text),
    st.binary(min_size=8, max_size=8).map(lambda number: b"T" + number),
    st.binary(min_size=5, max_size=5).map(lambda number: b"D" + number),
    st.integers(0, 3000).map(nested),
)
HEADERS = st.lists(st.tuples(st.binary(max_size=9), VALUES), max_size=3).map(lambda fields: table(*fields))


@given(st.data())
def test_properties_of_any_bytes_are_read(data: st.DataObject) -> None:
    flags, encoded = 0, b""
    for position, (_, kind) in enumerate(amqp.Message.PROPERTIES):
        if data.draw(st.booleans()):
            flags |= 1 << 15 - position
            encoded += data.draw(
                HEADERS if kind == "F" else KINDS.get(kind, st.binary(min_size=8, max_size=8)), label=kind
            )
    _, _, message = Reader().deliver(struct.pack(">H", flags) + encoded)
    assert message.body == b"body"
