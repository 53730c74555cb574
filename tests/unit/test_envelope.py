"""A MessageEnvelope: each member wrong in turn is told by its place."""

from __future__ import annotations

from contextlib import suppress
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from chiffon.domain.envelope import MessageEnvelope, parse_envelope
from chiffon.domain.errors import MalformedMessage

ABSENT = object()


def envelope(**members: Any) -> dict[str, Any]:
    """An envelope that says everything, but for what is changed or taken out (ABSENT)."""
    said = {
        "protocol_version": "1.0",
        "message_id": "m-1",
        "trace_id": "4bf92f3577b34da6a3ce929d0e0e4736",
        "request_id": "r-1",
        "task_id": "t-1",
        "type": "work_request",
        "priority": 5,
        "payload": {"work_type": "echo", "parameters": {"input": "hello"}},
    }
    return {name: value for name, value in (said | members).items() if value is not ABSENT}


def test_everything_that_is_said_is_read() -> None:
    read = parse_envelope(envelope())
    assert (read.message_id, read.request_id, read.task_id, read.priority) == ("m-1", "r-1", "t-1", 5)
    assert read.trace_id == "4bf92f3577b34da6a3ce929d0e0e4736"
    assert (read.payload.work_type, read.payload.parameters) == ("echo", {"input": "hello"})


def test_ids_priority_and_parameters_may_be_left_out() -> None:
    read = parse_envelope({"protocol_version": "1.0", "type": "work_request", "payload": {"work_type": "echo"}})
    assert (read.message_id, read.trace_id, read.request_id, read.task_id, read.priority) == (None,) * 5
    assert read.payload.parameters == {}


def test_what_a_later_version_may_add_is_ignored() -> None:
    assert parse_envelope(envelope(sent_at="2030-01-01", x={"y": 1})) == parse_envelope(envelope())


@pytest.mark.parametrize(
    ("member", "value"),
    [
        ("protocol_version", ABSENT),
        ("protocol_version", "2.0"),
        ("protocol_version", 1.0),
        ("protocol_version", None),
        ("type", ABSENT),
        ("type", "work_response"),
        ("type", ["work_request"]),
        ("payload", ABSENT),
        ("payload", None),
        ("payload", []),
        ("payload", "echo"),
        ("message_id", 7),
        ("message_id", ""),
        ("message_id", "m" * 256),
        ("trace_id", 7),
        ("request_id", ""),
        ("request_id", "r" * 201),
        ("request_id", 7),
        ("request_id", {"a": 1}),
        ("task_id", ""),
        ("task_id", "t" * 256),
        ("task_id", []),
        ("priority", 0),
        ("priority", 6),
        ("priority", True),
        ("priority", "3"),
        ("priority", 3.5),
    ],
)
def test_a_wrong_member_is_told_by_its_place(member: str, value: object) -> None:
    with pytest.raises(MalformedMessage, match=f"not a MessageEnvelope: .*/{member}"):
        parse_envelope(envelope(**{member: value}))


@pytest.mark.parametrize(
    ("payload", "where"),
    [
        ({}, "/payload/work_type"),
        ({"parameters": {}}, "/payload/work_type"),
        ({"work_type": ""}, "/payload/work_type"),
        ({"work_type": 7}, "/payload/work_type"),
        ({"work_type": "w" * 201}, "/payload/work_type"),
        ({"work_type": None}, "/payload/work_type"),
        ({"work_type": "echo", "parameters": []}, "/payload/parameters"),
        ({"work_type": "echo", "parameters": None}, "/payload/parameters"),
        ({"work_type": "echo", "parameter": {}}, "/payload/parameter"),
    ],
)
def test_a_wrong_payload_is_told_by_its_place(payload: dict[str, Any], where: str) -> None:
    with pytest.raises(MalformedMessage, match=where):
        parse_envelope(envelope(payload=payload))


def test_every_wrong_member_is_told_at_once() -> None:
    with pytest.raises(MalformedMessage, match=r"/type.*/payload/work_type.*/priority"):
        parse_envelope(envelope(type="x", payload={}, priority=9))


@pytest.mark.parametrize("value", [None, True, 0, 1.5, "work_request", [], [envelope()], {}, [[], {}, {}]])
def test_json_that_is_no_envelope_is_none(value: object) -> None:
    with pytest.raises(MalformedMessage, match="not a MessageEnvelope"):
        parse_envelope(value)


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=9,
)


@given(JSON | st.dictionaries(st.sampled_from(sorted(envelope())), JSON).map(lambda wrong: envelope(**wrong)))
def test_any_value_is_an_envelope_or_malformed_and_nothing_else(value: Any) -> None:
    with suppress(MalformedMessage):
        assert isinstance(parse_envelope(value), MessageEnvelope)
