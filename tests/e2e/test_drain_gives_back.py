"""Whoever drains keeps what runs, and nothing else: what it has claimed and will not begin is given back at once."""

from __future__ import annotations

from signal import SIGTERM

import pytest
from celery import Celery

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.nodes import BrokerNode
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_claimed_work_that_a_draining_agent_will_not_begin_is_done_by_another_meanwhile(
    pool: str, celery_broker: BrokerNode, api: HttpClient, agents: Agents, diary: Diary
) -> None:
    leaving = agents.start("leaving", pool=pool, concurrency=2, drain_seconds=60)
    control = Celery(broker=celery_broker.url).control
    assert control.rate_limit("test.append", "1/h", destination=[leaving.agent_id], reply=True)
    long = api.dispatch("test.run", {"path": str(diary.path), "seconds": 50})
    eventually("it to run", diary.entries)
    api.wait_for(api.dispatch("test.append", diary.parameters("first")), "completed")
    held = api.dispatch("test.append", diary.parameters("second"))
    api.wait_for(held, "running")

    leaving.container.signal(SIGTERM)
    eventually("it to drain", lambda: api.agent(leaving.agent_id)["status"] == "draining")
    heir = agents.start("heir", pool=pool)

    assert api.wait_for(held, "completed", within=20)["agent_id"] == heir.agent_id
    assert leaving.container.exit_code is None
    assert diary.notes(held) == ["second"]
    assert diary.notes(long) == ["begun"]
