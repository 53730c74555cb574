"""Guarantee 6: a cancel outlives restarts: what waits never starts, what runs is asked, and then stopped."""

from __future__ import annotations

import os
from datetime import timedelta

import psutil
import pytest

from chiffon.devstack.guardian import lives
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import PATIENCE, eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

HARD_WITHIN = timedelta(seconds=2)
"""The default grace of a run that is to be cancelled."""


def test_work_that_does_not_listen_is_stopped_within_two_seconds_of_its_cancel(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agent = agents.start(pool="prefork")  # a thread cannot be stopped
    task_id = api.dispatch("test.run", {"path": str(diary.path), "seconds": 60})
    eventually("the run to be under way", diary.entries)
    runner = psutil.Process(diary.entries()[0].pid)

    assert api.post(f"/tasks/{task_id}/cancel").status_code == 202

    api.wait_for(task_id, "cancelled")
    row = ledger.task(task_id)
    assert row is not None
    assert row["finished_at"] - row["cancel_requested_at"] <= HARD_WITHIN
    assert not lives(runner)
    assert diary.notes() == ["begun"]
    after = api.dispatch("echo", {"input": "still here"})
    assert api.wait_for(after, "completed")["agent_id"] == agent.agent_id


@pytest.mark.parametrize(
    ("work_type", "outcome", "end"),
    [
        ("test.run_until_asked", "completed", "completed"),  # a result wins
        ("test.give_up_when_asked", "failed", "cancelled"),
    ],
)
def test_work_that_listens_is_asked_and_ends_by_itself(
    work_type: str, outcome: str, end: str, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agents.start(cancel_grace=4 * PATIENCE)
    task_id = api.dispatch(work_type, {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)

    assert api.post(f"/tasks/{task_id}/cancel").status_code == 202

    api.wait_for(task_id, end)
    assert ledger.outcomes(task_id) == [outcome]  # of a run that was stopped: cancelled
    assert diary.notes() == ["begun", "asked"]


def test_a_cancel_outlives_the_agents_and_what_was_cancelled_is_never_run(
    api: HttpClient, agents: Agents, amqp_client: RawAmqp, diary: Diary, ledger: LedgerReader
) -> None:
    agent = agents.start("first", cancel_grace=30)
    running = api.dispatch("test.run", {"path": str(diary.path), "seconds": 60})
    eventually("the run to be under way", diary.entries)
    queued = api.dispatch("test.append", diary.parameters("queued"))
    api.wait_for(queued, "queued")

    assert api.post(f"/tasks/{queued}/cancel").status_code == 200
    assert api.post(f"/tasks/{running}/cancel").status_code == 202
    agent.kill()
    eventually("both messages to be back", lambda: amqp_client.ready("work_queue") == 2)
    agents.start("second")

    after = api.dispatch("test.append", diary.parameters("after"))
    api.wait_for(after, "completed")
    eventually("both to be cancelled", lambda: ledger.statuses() == {"cancelled": 2, "completed": 1})
    assert amqp_client.ready("work_queue") == 0
    assert ledger.outcomes(queued) == []
    assert ledger.outcomes(running) == ["agent_lost"]
    assert diary.notes() == ["begun", "after"]


def started(ledger: LedgerReader, task_id: str) -> bool:
    """Whether the ledger knows that its run has begun: from then on a death would be charged to it."""
    return any(run["started_at"] for run in ledger.executions(task_id))


def test_an_agent_with_threads_ends_over_a_cancel_that_is_ignored_and_gives_its_other_work_back(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agent = agents.start("ending", pool="threads", concurrency=2)
    stubborn = api.dispatch("test.run", {"path": str(diary.path), "seconds": 60})
    companion = api.dispatch("test.run_long_at_first", {"path": str(diary.path), "seconds": 60})
    eventually("both to be under way", lambda: diary.notes() == ["begun", "begun"])
    eventually("both to be marked", lambda: all(started(ledger, task_id) for task_id in (stubborn, companion)))
    heir = agents.start("heir")

    assert api.post(f"/tasks/{stubborn}/cancel").status_code == 202

    eventually("the agent to end", lambda: agent.container.exit_code is not None)
    assert agent.container.exit_code == os.EX_TEMPFAIL
    task = api.wait_for(companion, "completed")
    runs = [(run["agent_id"], run["outcome"]) for run in task["executions"]]
    assert runs == [(agent.agent_id, "given_back"), (heir.agent_id, "completed")]
    row = ledger.task(companion)
    assert row is not None
    assert (row["crashes"], row["agent_deaths"], row["retries"]) == (0, 0, 0)
    assert api.task(stubborn)["status"] == "cancelled"
    assert ledger.outcomes(stubborn) == ["cancelled"]
    assert diary.notes(stubborn) == ["begun"]
    assert diary.notes(companion) == ["begun", "begun", "ended"]
