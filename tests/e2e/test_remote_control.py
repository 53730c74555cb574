"""`celery inspect` and `celery control`, as a person or Flower sends them to agents."""

from __future__ import annotations

from collections.abc import Iterator

import pytest
from celery import Celery

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.stack import StackUnderTest
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

PATIENCE = 10.0
"""Seconds for an agent's answer."""


@pytest.fixture
def celery(stack: StackUnderTest) -> Iterator[Celery]:
    """A Celery application that knows the broker, and nothing of Chiffon."""
    with Celery(broker=stack.broker_url) as application:
        yield application


def test_inspection_tells_of_the_agent_and_of_its_work_without_secrets(
    celery: Celery, api: HttpClient, agents: Agents, diary: Diary
) -> None:
    agent = agents.start(concurrency=1)
    noted = {"path": str(diary.path), "note": {"password": "not-to-be-shown"}}
    running = api.dispatch("test.append", {**noted, "seconds": 60})
    eventually("the run to be under way", lambda: diary.entries(running))
    inspect = celery.control.inspect([agent.agent_id], timeout=PATIENCE, limit=1)
    stats = inspect.stats()
    assert stats[agent.agent_id]["pool"]["max-concurrency"] == 1
    assert "password" not in stats[agent.agent_id]["broker"]
    shown = [inspect.active(), inspect.query_task(running), inspect.conf(), inspect.report(), stats]
    assert running in str(shown)
    assert "not-to-be-shown" not in str(shown)


def test_a_queue_that_nobody_asks_for_is_refused_and_hangs_no_agent(
    celery: Celery, api: HttpClient, agents: Agents
) -> None:
    agent = agents.start()
    (answer,) = celery.control.add_consumer("work_queue.gup", reply=True, timeout=PATIENCE, limit=1)
    assert "no work type asks for the queue work_queue.gup" in answer[agent.agent_id]["error"]
    task_id = api.dispatch("echo", {"input": 1})
    api.wait_for(task_id, "completed")
    assert agent.container.exit_code is None


def test_an_agent_leaves_a_queue_and_comes_back_to_it(celery: Celery, api: HttpClient, agents: Agents) -> None:
    agent = agents.start()
    celery.control.cancel_consumer("work_queue", reply=True, timeout=PATIENCE, limit=1)
    eventually(
        "it to be left", lambda: not celery.control.inspect(timeout=PATIENCE, limit=1).active_queues()[agent.agent_id]
    )
    task_id = api.dispatch("echo", {"input": 1})
    (answer,) = celery.control.add_consumer("work_queue", reply=True, timeout=PATIENCE, limit=1)
    assert answer[agent.agent_id] == {"ok": "add consumer work_queue"}
    api.wait_for(task_id, "completed")
