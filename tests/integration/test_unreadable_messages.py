"""Whoever waits for a message of Celery's that no agent can read hears why, and a neighbour of its name is done."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import chord
from celery.canvas import Signature
from celery.exceptions import ChordError

from chiffon.domain.ids import new_task_id
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.canvas_client import WORK, CanvasClient
from tests.e2e.diary import Diary
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

PATIENCE = 30
ODD: dict[str, dict[str, Any]] = {
    "NaN": {"kwargs": {"input": float("nan")}},
    "NUL": {"args": ["a\x00b"]},
    "too large": {"args": ["x" * 20_000]},
    "too large headers": {"args": [1], "headers": {"mine": "x" * 40_000}},
    "pickled": {"args": [1], "serializer": "pickle"},
    "no time limit": {"args": [1], "time_limit": -1},
}


@pytest.fixture
def client(desk: Desk, amqp_client: RawAmqp, diary: Diary) -> Iterator[CanvasClient]:
    found = CanvasClient(amqp_client.url, desk.url, diary)
    yield found
    found.app.backend.listener.linger = 0
    found.close()


def test_whoever_waits_for_a_message_that_no_agent_can_read_hears_why(
    agents: Agents, desk: Desk, client: CanvasClient
) -> None:
    agents.start(max_message=10_000)
    sent = {what: client.app.send_task("echo", **options, **WORK) for what, options in ODD.items()}
    sent["a key of another"] = client.app.send_task("echo", [1], headers={"request_id": "held"}, **WORK)
    sent["its key"] = client.app.send_task("echo", [2], headers={"request_id": "held"}, **WORK)
    assert sent.pop("a key of another").get(timeout=PATIENCE) == {"output": 1}
    for what, result in sent.items():
        assert isinstance(result.get(timeout=PATIENCE, propagate=False), Exception), what
        assert desk.status(result.id) == "dead_lettered", what


def test_a_chord_of_which_no_agent_can_read_a_part_fails(agents: Agents, desk: Desk, client: CanvasClient) -> None:
    agents.start()

    def echo(*arguments: Any) -> Signature:
        return client.app.signature("echo", args=arguments, options=dict(WORK))

    gathered = chord([echo(1), echo(float("nan"))], echo()).apply_async()
    assert isinstance(gathered.get(timeout=PATIENCE, propagate=False), ChordError)


def test_what_no_agent_can_read_keeps_no_message_of_its_name_from_being_done(
    agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agent = agents.start()
    name = new_task_id()
    headers = {"task": "echo", "id": name, "lang": "py"}
    amqp_client.publish(b"{", headers=headers)
    eventually("it to be told of", lambda: desk.status(name) == "dead_lettered")
    amqp_client.publish_json([["sound"], {}, None], headers=headers)
    assert desk.result(desk.wait_for(name, "completed")["task_id"]) == ("SUCCESS", {"output": "sound"})
    amqp_client.publish(b"{", headers=headers)
    eventually("both letters", lambda: len(amqp_client.look("dlx_queue")) == 2)
    desk.wait_for(desk.place("echo", {"input": "after"}), "completed")
    assert desk.status(name) == "completed"
    assert agent.container.status == "running"
