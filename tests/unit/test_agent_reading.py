"""Reading a delivery: both forms of work, and our own doorbells."""

from __future__ import annotations

import uuid
import zlib
from dataclasses import replace
from datetime import UTC, datetime
from typing import Any

import pytest

from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.bus.letters import DOORBELL
from chiffon.domain import ids
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import NewTask
from chiffon.domain.work import WorkTypes, work
from tests.deliveries import TRACE, Delivery, encoded, enveloped, native

TYPES = WorkTypes()


@work("echo", into=TYPES)
def echo(input: Any) -> None: ...  # noqa: A002


@work("count", queue="gpu", into=TYPES)
def count(text: str, times: int = 1) -> None: ...


READER = Reader(TYPES, {"celery.add": object(), "echo": object()}, limit=100_000)


def task(delivery: Delivery) -> NewTask:
    """The task that a delivery asks for."""
    found = READER.read(delivery)
    assert isinstance(found, Direct)
    return found.task


def test_our_own_doorbell_names_its_task_and_nothing_else_of_it_is_read() -> None:
    assert READER.read(Delivery(b"\xff", headers={DOORBELL: 1, "id": "t-1"})) == Doorbell("t-1")


def test_an_envelope_is_work_with_everything_that_it_says() -> None:
    read = task(
        enveloped(
            task_id="t-1",
            request_id="r-1",
            trace_id=TRACE.upper(),
            message_id="m-1",
            priority=5,
            payload={"work_type": "count", "parameters": {"text": "a", "times": 2}},
        )
    )
    assert (read.task_id, read.request_id, read.trace_id, read.priority) == ("t-1", "r-1", TRACE, 5)
    assert (read.work_type, read.parameters, read.queue) == ("count", {"text": "a", "times": 2}, "work_queue.gpu")
    assert (read.keyed, read.origin) == (True, "message")
    assert read.fingerprint == fingerprint("count", {"text": "a", "times": 2})


def test_a_message_means_the_same_task_each_time_it_is_delivered() -> None:
    by_member = enveloped(message_id="m-1")
    by_property = enveloped(properties={"message_id": "m-1"})
    assert task(by_member).task_id == task(by_member).task_id == task(by_property).task_id
    assert uuid.UUID(task(by_member).task_id).version == 5
    assert task(by_member).request_id == task(by_member).task_id
    assert not task(by_member).keyed
    assert READER.read(by_member).anonymous is False  # type: ignore[union-attr]


def test_the_envelopes_message_id_outranks_the_propertys() -> None:
    both = enveloped(message_id="m-1", properties={"message_id": "m-2"})
    assert task(both).task_id == task(enveloped(message_id="m-1")).task_id


def test_a_message_without_any_id_says_so() -> None:
    one, other = READER.read(enveloped()), READER.read(enveloped())
    assert isinstance(one, Direct)
    assert isinstance(other, Direct)
    assert (one.anonymous, other.anonymous) == (True, True)
    assert one.task.task_id != other.task.task_id


def test_a_task_id_that_is_too_long_for_a_request_id_is_cut_for_it() -> None:
    read = task(enveloped(task_id="t" * 255))
    assert read.task_id == "t" * 255
    assert ids.is_request_id(read.request_id)
    assert ids.is_request_id(task(native(id="t" * 255)).request_id)


@pytest.mark.parametrize(("given", "read"), [(None, 3), (0, 3), (1, 1), (5, 5), (9, 5), (255, 5), (True, 3), ("4", 3)])
def test_the_priority_of_the_property_counts_where_the_envelope_has_none(given: object, read: int) -> None:
    assert task(enveloped(properties={"priority": given})).priority == read
    assert task(enveloped(priority=2, properties={"priority": given})).priority == 2
    assert task(native(priority=given)).priority == read


def test_celerys_own_form_is_work() -> None:
    read = task(native([], {"text": "a"}, task="count", id="t-1"))
    assert (read.task_id, read.request_id, read.keyed) == ("t-1", "t-1", False)
    assert (read.work_type, read.parameters, read.arguments) == ("count", {"text": "a"}, [])
    assert read.fingerprint == fingerprint("count", {"text": "a", "times": 1})


def test_positional_arguments_are_bound_to_their_names() -> None:
    read = task(native(["a"], {"times": 3}, task="count"))
    assert (read.arguments, read.parameters) == ([], {"text": "a", "times": 3})


def test_the_same_work_has_one_fingerprint_in_both_forms() -> None:
    in_an_envelope = enveloped(payload={"work_type": "count", "parameters": {"times": 1, "text": "a"}})
    assert task(native(["a"], {}, task="count")).fingerprint == task(in_an_envelope).fingerprint


def test_any_celery_task_of_this_agent_is_work_in_celerys_form() -> None:
    read = task(native([1, 2], {"x": 3}, task="celery.add"))
    assert (read.work_type, read.arguments, read.parameters) == ("celery.add", [1, 2], {"x": 3})
    assert read.fingerprint != task(native([1, 3], {"x": 3}, task="celery.add")).fingerprint


def test_the_sender_s_own_headers_are_kept_and_the_broker_s_are_not() -> None:
    own = {"tenant": "a", "x-tenant": "b"}
    brokers = {"x-death": [{}], "x-first-death-queue": "q", "x-delivery-count": 2, "x-opt-enqueue-time": 1}
    assert task(native(**own, **brokers)).canvas["headers"] == own


def test_headers_of_a_canvas_are_kept() -> None:
    embed = {"callbacks": [{"task": "next"}], "errbacks": [], "chain": None, "chord": {"task": "body"}, "new": 1}
    read = task(
        native(
            embed=embed, root_id="root", parent_id="parent", group="g", group_index=3, reply_to="q", stamps={"a": ["b"]}
        )
    )
    assert read.canvas == {
        "root_id": "root",
        "parent_id": "parent",
        "group": "g",
        "embed": {"callbacks": [{"task": "next"}], "chord": {"task": "body"}},
        "headers": {"group_index": 3, "reply_to": "q", "stamps": {"a": ["b"]}},
    }


def test_the_tasks_of_a_canvas_share_a_trace() -> None:
    root, child = task(native(id="root")), task(native(id="child", root_id="root"))
    assert root.trace_id == child.trace_id
    assert task(native(id="child", root_id="root", trace_id=TRACE)).trace_id == TRACE


def test_limits_and_times_of_celery_are_the_ledgers() -> None:
    read = task(
        native(timelimit=[9, 4.5], eta="2030-01-31T12:00:00", expires="2030-01-31T12:00:00+02:00", request_id="r-1")
    )
    assert (read.timeout, read.soft_timeout) == (9, 4.5)
    assert read.run_at == datetime(2030, 1, 31, 12, tzinfo=UTC)
    assert read.expires_at == datetime(2030, 1, 31, 10, tzinfo=UTC)
    assert (read.request_id, read.keyed) == ("r-1", True)
    assert task(native(timelimit=[None, None])).timeout is None
    assert task(native(timelimit=[0, 0.0])).timeout is None


@pytest.mark.parametrize("content_type", ["application/json", "Application/JSON; charset=utf-8", "text/json", "", None])
@pytest.mark.parametrize("content_encoding", ["utf-8", "UTF-8", "utf8", "binary", "", None])
def test_every_way_to_say_json_is_understood(content_type: str | None, content_encoding: str | None) -> None:
    said = replace(enveloped(), content_type=content_type, content_encoding=content_encoding)
    assert task(said).parameters == {"input": "hello"}


def test_a_compressed_body_is_unpacked() -> None:
    plain = native()
    packed = replace(
        plain, body=zlib.compress(plain.body), headers=plain.headers | {"compression": "application/x-gzip"}
    )
    assert task(packed) == task(plain)


def test_unicode_arrives_as_it_was_sent() -> None:
    said = {"input": "grüß 👋 \u2028"}
    assert task(native([], said)).parameters == said
    raw = replace(enveloped(), body='{"protocol_version":"1.0","type":"work_request","payload":'
                  '{"work_type":"echo","parameters":{"input":"grüß 👋"}}}'.encode())  # fmt: skip
    assert task(raw).parameters == {"input": "grüß 👋"}


def test_a_body_may_be_as_large_as_the_limit() -> None:
    room = 100_000 - len(encoded([[], {"input": ""}, None]))
    assert len(task(native([], {"input": "x" * room})).parameters["input"]) == room
