"""A letter's frames are those that py-amqp would write, and what AMQP cannot say is not written at all."""

from __future__ import annotations

from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import amqp
import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.bus.letters import Letter, Message
from chiffon.bus.sealing import FRAME_OVERHEAD, seal
from chiffon.domain.errors import MalformedMessage
from tests.bells import bell
from tests.frames import publishes

FRAME_MAX = 4096

names = st.text(st.characters(max_codepoint=0x7FF), max_size=60)
scalars = (
    st.none() | st.booleans() | st.text(max_size=40) | st.integers(-(2**63), 2**63 - 1) | st.floats(allow_nan=False)
)
headers = st.dictionaries(
    names, st.recursive(scalars, lambda inner: st.lists(inner, max_size=3) | st.dictionaries(names, inner, max_size=3))
)
properties = st.fixed_dictionaries(
    {},
    optional={
        "content_type": names,
        "correlation_id": names,
        "delivery_mode": st.integers(1, 2),
        "priority": st.integers(0, 255),
        "timestamp": st.integers(0, 2**40),
        "reply_to": st.just(""),
    },
)


def by_py_amqp(message: Message) -> bytes:
    """The properties of a message as py-amqp writes them."""
    fields = {**message.properties, "application_headers": message.headers, "message_id": message.message_id}
    return bytes(amqp.Message(message.body, **fields)._serialize_properties())


def properties_of(sealed: bytes) -> bytes:
    """The properties in the second frame."""
    first = 8 + int.from_bytes(sealed[3:7], "big")
    size = int.from_bytes(sealed[first + 3 : first + 7], "big")
    return sealed[first + 7 : first + 7 + size][12:]


@given(headers=headers, properties=properties, body=st.binary(max_size=100))
def test_every_byte_of_the_properties_is_as_py_amqp_writes_it(
    headers: dict[str, Any], properties: dict[str, Any], body: bytes
) -> None:
    message = Message("m-1", body, headers, properties)
    sealed = seal(Letter("work", "work_queue", message), channel=7, frame_max=131072)
    assert properties_of(sealed) == by_py_amqp(message)
    [(place, heard)] = publishes(sealed)
    assert place == ("work", "work_queue", True)
    assert heard.body == body
    assert heard.ready


@pytest.mark.parametrize("value", [datetime(2026, 1, 2, tzinfo=UTC), Decimal("1.5"), b"bytes", "\ud800", [{"a": [1]}]])
def test_other_values_are_left_to_py_amqp(value: Any) -> None:
    message = Message("m-1", b"", {"x": value, "after": 1})
    sealed = seal(Letter("work", "work_queue", message), channel=1, frame_max=FRAME_MAX)
    assert properties_of(sealed) == by_py_amqp(message)


@pytest.mark.parametrize("size", [0, 1, FRAME_MAX - FRAME_OVERHEAD, FRAME_MAX - FRAME_OVERHEAD + 1, 3 * FRAME_MAX])
def test_a_body_goes_in_frames_that_are_not_too_large(size: int) -> None:
    body = bytes(range(256)) * (size // 256 + 1)
    sealed = seal(Letter("work", "q", Message("m", body[:size])), channel=1, frame_max=FRAME_MAX)
    [(_, heard)] = publishes(sealed)
    assert heard.body == body[:size]
    at = 0
    while at < len(sealed):
        frame = 8 + int.from_bytes(sealed[at + 3 : at + 7], "big")
        assert frame <= FRAME_MAX
        at += frame


def test_a_doorbell_is_heard_as_it_was_meant() -> None:
    letter = bell(parameters={"größe": "ü" * 300}).letter()
    [(place, heard)] = publishes(seal(letter, channel=1, frame_max=131072))
    assert place == ("work", "work_queue", True)
    assert heard.body == letter.message.body
    assert heard.headers == letter.message.headers
    assert heard.properties["message_id"] == letter.message.message_id


@pytest.mark.parametrize(
    "letter",
    [
        Letter("x" * 256, "q", Message("m", b"")),
        Letter("work", "ü" * 200, Message("m", b"")),
        Letter("work", "q", Message("m" * 256, b"")),
        Letter("work", "q", Message("m", b"", {"n" * 256: 1})),
        Letter("work", "q", Message("m", b"", {"n": object()})),
        Letter("work", "q", Message("m", b"", {"n": 2**64})),
        Letter("work", "q", Message("m", b"", {"n": "x" * FRAME_MAX})),
        Letter("work", "q", Message("m", b"", {}, {"priority": 256})),
        Letter("work", "q", Message("m", b"", {}, {"priority": "high"})),
    ],
)
def test_what_amqp_has_no_words_for_is_refused(letter: Letter) -> None:
    with pytest.raises(MalformedMessage):
        seal(letter, channel=1, frame_max=FRAME_MAX)
