"""Tasks that go to a process together have each a fate of their own."""

from __future__ import annotations

from collections.abc import Callable
from signal import SIGTERM
from typing import Any

import pytest

from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import AgentNode
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

Steps = Callable[..., list[str]]
"""Dispatches many steps in one commit; by place, what some of them do besides."""


@pytest.fixture
def steps(api: HttpClient, diary: Diary) -> Steps:
    """So many steps that write into the diary."""

    def dispatch(many: int, besides: dict[int, dict[str, Any]] | None = None, **fields: Any) -> list[str]:
        extra = besides or {}
        orders = [("test.step", {"path": str(diary.path)} | extra.get(place, {})) for place in range(many)]
        return api.dispatch_many(orders, **fields)

    return dispatch


@pytest.fixture
def agent(request: pytest.FixtureRequest, agents: Agents, steps: Steps, ledger: LedgerReader) -> AgentNode:
    """An agent with one process, which knows steps to be short, and hands them over together.

    The parameter, if there is one: options for Celery.
    """
    options = getattr(request, "param", ())
    node = agents.start(pool="prefork", log_level="DEBUG", takeover_grace=1, work_ahead=1, options=options)

    def shares() -> bool:
        steps(40)
        eventually("all of them to be done", lambda: set(ledger.statuses()) == {"completed"})
        return bool(node.log_lines(mentioning='"handed_over"'))

    eventually("the agent to hand several over at once", shares, within=60)
    return node


def assert_done_once(ledger: LedgerReader, diary: Diary, task_ids: list[str]) -> None:
    """Each was run once, by the log and by the file, and costs nothing."""
    assert sorted(task_id for task_id in diary.task_ids() if task_id in set(task_ids)) == sorted(task_ids)
    for task_id in task_ids:
        row = ledger.task(task_id)
        assert row is not None
        assert (row["status"], row["attempts"], row["crashes"], row["agent_deaths"]) == ("completed", 1, 0, 0)
        assert ledger.outcomes(task_id) == ["completed"]


@pytest.mark.parametrize("agent", [("--time-limit", "2")], indirect=True)
def test_celery_s_own_time_limit_ends_none_that_may_run_longer(
    agent: AgentNode, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(40, {7: {"seconds": 5}})
    for task_id in task_ids:
        api.wait_for(task_id, "completed")
    assert_done_once(ledger, diary, task_ids)
    assert agent.container.status == "running"


def test_one_that_takes_its_process_along_costs_its_companions_nothing(
    agent: AgentNode, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(40, {7: {"kill": True}, 20: {"kill": True}})
    deadly = [task_ids.pop(20), task_ids.pop(7)]

    for task_id in deadly:
        task = api.wait_for(task_id, "dead_lettered")
        assert [run["outcome"] for run in task["executions"]] == ["crashed"] * 3
        assert diary.task_ids().count(task_id) == 3
    for task_id in task_ids:
        api.wait_for(task_id, "completed")
    assert_done_once(ledger, diary, task_ids)
    assert agent.container.status == "running"


def test_one_that_turns_out_to_be_long_holds_up_none_that_another_process_can_do(
    agent: AgentNode, agents: Agents, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    agents.start("second", pool="prefork")
    task_ids = steps(40, {3: {"seconds": 20}})
    long = task_ids.pop(3)

    for task_id in task_ids:
        api.wait_for(task_id, "completed", within=15)
    assert api.task(long)["status"] == "running"
    assert_done_once(ledger, diary, task_ids)


def test_one_that_is_cancelled_while_it_runs_costs_its_companions_nothing(
    agent: AgentNode, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(40, {3: {"seconds": 60}})
    long = task_ids.pop(3)
    eventually("it to run", lambda: long in diary.task_ids())

    assert api.post(f"/tasks/{long}/cancel").status_code in {200, 202}

    api.wait_for(long, "cancelled")
    for task_id in task_ids:
        api.wait_for(task_id, "completed")
    assert_done_once(ledger, diary, task_ids)


def test_one_that_runs_over_its_limit_is_ended_and_costs_its_companions_nothing(
    agent: AgentNode, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(40, {3: {"seconds": 60}}, timeout_seconds=6)
    long = task_ids.pop(3)

    api.wait_for(long, "timed_out", within=20)
    for task_id in task_ids:
        api.wait_for(task_id, "completed")
    assert_done_once(ledger, diary, task_ids)


def test_what_had_ended_is_kept_when_an_agent_is_told_twice_to_end(
    agent: AgentNode, agents: Agents, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(40, {5: {"seconds": 60}})
    long = task_ids.pop(5)
    eventually("it to run", lambda: long in diary.task_ids())

    agent.container.signal(SIGTERM)
    eventually("it to say so", lambda: api.agent(agent.agent_id)["status"] == "draining")
    agent.container.signal(SIGTERM)
    eventually("the agent to be gone", lambda: agent.container.exit_code is not None)

    agents.start("heir", pool="prefork", concurrency=2)  # one for what is long again
    for task_id in task_ids:
        api.wait_for(task_id, "completed")
    assert_done_once(ledger, diary, task_ids)
    assert ledger.outcomes(long)[0] == "given_back"


def test_when_their_agent_is_killed_only_the_one_that_had_begun_is_charged_and_all_are_done(
    agent: AgentNode, agents: Agents, steps: Steps, api: HttpClient, ledger: LedgerReader, diary: Diary
) -> None:
    task_ids = steps(20, {3: {"seconds": 5}})
    long = task_ids.pop(3)
    begun = "SELECT task_id FROM tasks WHERE status = 'running' AND started_at IS NOT NULL"
    eventually("it to be seen to run", lambda: [row["task_id"] for row in ledger.rows(begun)] == [long])

    agent.kill()

    agents.start("heir", pool="prefork", takeover_grace=1)
    for task_id in [*task_ids, long]:
        api.wait_for(task_id, "completed")
    assert ledger.outcomes(long) == ["agent_lost", "completed"]
    assert ledger.task(long)["agent_deaths"] == 1  # type: ignore[index]
    rows = ledger.rows("SELECT agent_deaths, crashes, give_backs FROM tasks WHERE task_id = ANY(%s)", task_ids)
    assert [(row["agent_deaths"], row["crashes"]) for row in rows] == [(0, 0)] * len(task_ids)
    assert any(row["give_backs"] for row in rows), "the agent had claimed more than it ran"
    ran = [task_id for task_id in diary.task_ids() if task_id in {*task_ids, long}]
    assert sorted(ran) == sorted([*task_ids, long, long])
