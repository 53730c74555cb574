"""Whatever else arrives is malformed, with a reason: nothing on the wire is worse than that."""

from __future__ import annotations

import math
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from decimal import Decimal
from typing import Any

import pytest

from chiffon.agent.fields import MAX_HEADERS
from chiffon.agent.reading import Reader, Unrunnable
from chiffon.agent.run import Draft
from chiffon.bus.letters import DOORBELL
from chiffon.domain.errors import MalformedMessage
from tests.deliveries import TRACE, Delivery, encoded, enveloped, native
from tests.unit.test_agent_reading import TYPES

READER = Reader(TYPES, {"celery.add": object()}, limit=10_000)


def reason(delivery: Delivery) -> str:
    """Why a delivery is refused."""
    with pytest.raises(MalformedMessage) as caught:
        READER.read(delivery)
    return str(caught.value)


@pytest.mark.parametrize(
    ("delivery", "told"),
    [
        (Delivery(b""), "not valid JSON"),
        (Delivery(b"hello"), "not valid JSON"),
        (Delivery(b'{"a":'), "not valid JSON"),
        (Delivery(b"\xff\xfe"), "not UTF-8"),
        (Delivery(b'"\xc3\x28"'), "not UTF-8"),
        (Delivery(b'{"a": NaN}'), "nan"),
        (Delivery(b'"\\u0000"'), "NUL"),
        (Delivery(b'"\\ud800"'), "surrogate"),
        (Delivery(b"[" * 5000 + b"]" * 5000), "deep"),
        (Delivery(b'{"a": 1, "a": 2}'), "twice"),
        (Delivery(b" " * 10_001), "more than CHIFFON_MAX_MESSAGE"),
        (replace(enveloped(), content_type="application/x-python-serialize"), "content type"),
        (replace(enveloped(), content_type="text/plain"), "content type"),
        (replace(enveloped(), content_type=7), "content type"),
        (replace(enveloped(), content_encoding="utf-16"), "content encoding"),
        (replace(enveloped(), content_encoding="klingon"), "content encoding"),
        (replace(enveloped(), content_encoding=b"utf-8"), "content encoding"),
        (replace(enveloped(), headers={"compression": "klingon"}), "unknown compression"),
        (replace(enveloped(), headers={"compression": ["gzip"]}), "unknown compression"),
        (replace(enveloped(), headers={"compression": "gzip"}), "is not gzip"),
        (Delivery(zlib.compress(b" " * 10_000_000), {"compression": "gzip"}), "larger than 10000"),
        (replace(enveloped(), headers=None), "no table"),
        (replace(enveloped(), headers=[("task", "echo")]), "no table"),
    ],
)
def test_bytes_that_are_no_json_message_are_refused(delivery: Delivery, told: str) -> None:
    assert told in reason(delivery)


@pytest.mark.parametrize(
    ("body", "begins"),
    [
        (b"hello", "the body is not valid JSON: "),
        (b"\xff", "the body is not UTF-8: "),
        (b'{"a": 1, "a": 2}', "the JSON has an object with the name 'a' twice"),
        (b"[" * 5000 + b"]" * 5000, "the JSON is nested more than "),
        (b'{"a": "\\u0000"}', "/a "),
    ],
)
def test_a_reason_is_a_sentence(body: bytes, begins: str) -> None:
    assert reason(Delivery(body)).startswith(begins)


@pytest.mark.parametrize("body", [None, True, 1, "work_request", [], {}, [[], {}, {}]])
def test_json_that_is_neither_form_is_refused(body: object) -> None:
    assert "not a MessageEnvelope" in reason(Delivery(encoded(body)))


@pytest.mark.parametrize(
    "members",
    [
        {"type": "work_response"},
        {"protocol_version": "2.0"},
        {"payload": {"parameters": {}}},
        {"payload": None},
        {"task_id": "a\nb"},
        {"request_id": "a\tb"},
        {"trace_id": "xyz"},
        {"trace_id": "0" * 32},
        {"priority": 0},
        {"priority": 6},
        {"priority": True},
    ],
)
def test_an_envelope_with_a_wrong_member_is_refused(members: dict[str, Any]) -> None:
    assert reason(enveloped(**members))


@pytest.mark.parametrize(
    "body",
    [None, {}, [], [[], {}], [[], {}, {}, {}], "[[], {}, {}]", [{}, {}, {}], [[], [], {}], [[], {}, []], [[], {}, 7]],
)
def test_a_celery_body_of_another_shape_is_refused(body: object) -> None:
    assert reason(replace(native(), body=encoded(body)))


@pytest.mark.parametrize(
    "headers",
    [
        {"id": None},
        {"id": ""},
        {"id": 7},
        {"id": ["t-1"]},
        {"id": {"a": 1}},
        {"id": "a\x00b"},
        {"id": "t" * 256},
        {"task": None},
        {"task": ""},
        {"task": 7},
        {"task": ["echo"]},
        {"task": {"echo": 1}},
        {"task": "t" * 201},
        {"task": "a\x00b"},
        {"task": "a\ud800b"},
        {"request_id": ""},
        {"request_id": "r" * 201},
        {"request_id": ["r"]},
        {"trace_id": "xyz"},
        {"trace_id": 7},
        {"root_id": 7},
        {"root_id": []},
        {"parent_id": {}},
        {"group": "g" * 256},
        {"timelimit": 7},
        {"timelimit": [1]},
        {"timelimit": [1, 2, 3]},
        {"timelimit": ["1", "2"]},
        {"timelimit": [True, None]},
        {"timelimit": [False, None]},
        {"timelimit": [-1, None]},
        {"timelimit": [math.nan, None]},
        {"timelimit": [None, math.inf]},
        {"timelimit": [1e300, None]},
        {"timelimit": [Decimal(1), None]},
        {"eta": "tomorrow"},
        {"eta": 7},
        {"eta": datetime(2030, 1, 1, tzinfo=UTC)},
        {"eta": "9999-12-31T23:59:59-14:00"},
        {"eta": "0001-01-01T00:00:00+14:00"},
        {"expires": []},
        {"expires": "2030-13-01"},
        {"expires": "9999-12-31T23:59:59-14:00"},
        {"stamped_headers": 7},
        {"stamped_headers": [7]},
        {"stamped_headers": {"a": 1}},
        {"stamps": [1]},
        {"stamps": {"a": datetime(2030, 1, 1, tzinfo=UTC)}},
        {"stamps": {"a": "\x00"}},
        {"shadow": 7},
        {"group_index": "first"},
        {"group_index": 1.5},
        {"group_index": 2**31},
        {"reply_to": b"\xff"},
        {"group_index": math.nan},
        {"group_index": 2**63},
        {"stamps": {"a": [{"b": -(2**63) - 1}]}},
        {"stamps": {"ü" * 128: 1}},
        {"mine": 2**64},
        {"m" * 256: 1},
        {"mine": "x" * MAX_HEADERS},
    ],
)
def test_a_celery_header_of_the_wrong_shape_is_refused(headers: dict[str, Any]) -> None:
    assert reason(native(**headers))


@pytest.mark.parametrize(
    "embed",
    [
        {"callbacks": "next"},
        {"callbacks": [7]},
        {"callbacks": {"task": "next"}},
        {"errbacks": [["next"]]},
        {"chain": [None]},
        {"chain": "abc"},
        {"chord": [{"task": "body"}]},
        {"chord": "body"},
        {"chord": {"task": "body", "chord_size": {"a": 1}}},
        {"chord": {"task": "body", "chord_size": "2"}},
        {"chord": {"task": "body", "chord_size": True}},
        {"chord": {"task": "body", "chord_size": -1}},
        {"chord": {"task": "body", "chord_size": 2**31}},
    ],
)
def test_an_embedded_signature_of_the_wrong_shape_is_refused(embed: dict[str, Any]) -> None:
    assert reason(native(embed=embed))


@pytest.mark.parametrize("task_id", [None, "", 7, ["t"], "a\x00b", "t" * 256])
def test_a_doorbell_without_a_task_is_refused(task_id: object) -> None:
    assert "task id" in reason(Delivery(headers={DOORBELL: 1, "id": task_id}))


@pytest.mark.parametrize(
    ("delivery", "told"),
    [
        (native(task="ecko"), "did you mean echo"),
        (native([], {"inptu": 1}), "/parameters/inptu"),
        (native([1, 2], {}), "takes 1 parameters"),
        (native([1], {"input": 2}), "'input' twice"),
        (native(["a", "3"], {}, task="count"), "/parameters/times"),
        (native(["a", True], {}, task="count"), "/parameters/times"),
        (enveloped(payload={"work_type": "ecko"}), "did you mean echo"),
        (enveloped(payload={"work_type": "echo"}), "/parameters/input"),
        (enveloped(payload={"work_type": "celery.add"}), "unknown work type"),
    ],
)
def test_a_message_that_nobody_can_run_keeps_its_task_for_whoever_waits(delivery: Delivery, told: str) -> None:
    with pytest.raises(Unrunnable) as caught:
        READER.read(delivery)
    assert told in str(caught.value)
    assert caught.value.task.task_id
    assert len(caught.value.task.fingerprint) == 64


def test_what_remains_of_a_message_is_its_place_in_the_canvas() -> None:
    chord = {"task": "body", "chord_size": 2}
    message = native([math.nan], embed={"chord": chord}, root_id="root", group="group", group_index=3, parent_id=7)
    found = READER.remains(replace(message, headers=message.headers | {"trace_id": TRACE, "request_id": "r"}))
    assert found is not None
    assert (found.task_id, found.request_id, found.trace_id) == ("task-1", "r", TRACE)
    assert found.canvas == {
        "root_id": "root", "group": "group", "headers": {"group_index": 3}, "embed": {"chord": chord}
    }  # fmt: skip


@pytest.mark.parametrize(
    "body", [b"{", b"\xff", b"[" * 5000, b"[1, 2]", b'[1, 2, {"chord": "\\u0000"}]', b"[1, 2, NaN]"]
)
def test_what_cannot_be_kept_of_a_canvas_does_not_remain(body: bytes) -> None:
    odd = {"root_id": [], "group": "\x00", "trace_id": 7, "request_id": {}, "group_index": math.nan}
    found = READER.remains(replace(native(**odd), body=body))
    assert found is not None
    assert (found.canvas, found.request_id, len(found.trace_id)) == ({}, "task-1", 32)


DRAFT = Draft({"id": "next", "task": "echo"}, [], {"input": 1}, {}, priority=None, routing_key=None)


@pytest.mark.parametrize(
    ("asked", "found"), [(None, "work_queue"), ("work_queue", "work_queue"), ("work_queue.gpu",) * 2]
)
def test_what_follows_waits_where_work_may(asked: str | None, found: str) -> None:
    assert READER.from_draft(replace(DRAFT, routing_key=asked), trace_id="0" * 32, parent="own").queue == found


@pytest.mark.parametrize(
    "key", ["dlx_queue", "amq.x", "celery", "work_queue.", "work_queue.G", "work_queue." + "q" * 255]
)
def test_what_follows_is_refused_a_queue_that_is_none_for_work(key: str) -> None:
    with pytest.raises(MalformedMessage, match="no queue for work"):
        READER.from_draft(replace(DRAFT, routing_key=key), trace_id="0" * 32, parent="own")
