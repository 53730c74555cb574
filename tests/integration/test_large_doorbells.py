"""A task may be larger than any message that an agent takes."""

from __future__ import annotations

import json

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.raw_amqp import RawAmqp

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

LIMIT = 10_000
"""Bytes of a message, for the agents here."""


def test_a_task_larger_than_a_message_may_be_runs_at_its_first_ring(
    agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agents.start(max_message=LIMIT)
    large = desk.place("echo", {"input": "x" * 2 * LIMIT})
    desk.wait_for(large, "completed")
    assert desk.history(large).count("queued") <= 1
    assert amqp_client.look("dlx_queue") == []


def test_a_task_larger_than_any_doorbell_runs_and_its_dead_letter_says_nothing_of_it(
    agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agents.start()
    large = desk.place("echo", {"input": "x" * 100_000})
    assert desk.result(desk.wait_for(large, "completed")["task_id"]) == ("SUCCESS", {"output": "x" * 100_000})
    failing = desk.place("fail", {"message": "x" * 100_000})
    desk.wait_for(failing, "failed")
    [letter] = amqp_client.look("dlx_queue")
    assert letter.headers["id"] == failing
    assert json.loads(letter.body)[:2] == [[], {}]
