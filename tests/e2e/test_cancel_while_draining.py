"""Whoever drains still stops what is cancelled, or ends over it: nobody waits for a run that nobody wants."""

from __future__ import annotations

from signal import SIGTERM

import pytest

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_a_cancel_is_carried_out_while_its_agent_drains(
    pool: str, api: HttpClient, agents: Agents, diary: Diary
) -> None:
    agent = agents.start(pool=pool, drain_seconds=60, cancel_grace=1)
    task_id = api.dispatch("test.append", diary.parameters("long", seconds=120), timeout_seconds=300)
    eventually("it to run", diary.entries)
    agent.container.signal(SIGTERM)
    eventually("it to drain", lambda: api.agent(agent.agent_id)["status"] == "draining")

    assert api.post(f"/tasks/{task_id}/cancel").status_code == 202

    api.wait_for(task_id, "cancelled", within=15)
    eventually("the agent to be gone", lambda: agent.container.exit_code is not None, within=20)
    assert diary.notes() == ["long"]
