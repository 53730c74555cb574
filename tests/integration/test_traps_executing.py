"""Work that dies or does not end: stock Celery runs it without end, or ends itself; Chiffon counts."""

from __future__ import annotations

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.nodes import BrokerNode
from tests.e2e.waiting import eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import DEAD

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

LOOPING = ["killed", "exit", "interrupt"]
AGAIN = {"task_reject_on_worker_lost": True}
"""How its users keep stock Celery from losing the work of a process that was killed."""


@pytest.fixture
def remembering(stock: Stock, tmp_path: Path) -> Stock:
    """Stock Celery that keeps its states, in files."""
    (tmp_path / "states").mkdir()
    stock.backend = f"file://{tmp_path / 'states'}"
    return stock


@pytest.fixture
def counting(celery_broker: BrokerNode, tmp_path: Path) -> Iterator[Stock]:
    """Stock Celery on a queue of which the broker counts the deliveries."""
    (tmp_path / "states").mkdir()
    arguments = {"x-queue-type": "quorum", "x-delivery-limit": 1}
    found = Stock(celery_broker.url, tmp_path, f"file://{tmp_path / 'states'}", arguments)
    found.declare()
    yield found
    found.end()


def test_work_that_takes_its_process_along_is_run_without_end_by_stock_celery_and_three_times_by_chiffon(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch(pool="prefork", **DEEDS)
    stock.launch("-c", "3", **AGAIN)
    looping = {how: stock.send("trap.die", path=str(stock_diary.path), how=how) for how in LOOPING}
    every_way = [*LOOPING, "memory", "_exit", "segfault"]
    doomed = {how: desk.place("trap.die", {"path": str(diary.path), "how": how}) for how in every_way}

    for how, task_id in doomed.items():
        task = desk.wait_for(task_id, "dead_lettered", within=60)
        assert (task["crashes"], task["agent_deaths"], task["give_backs"]) == (3, 0, 0), how
        assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2, 3]
        assert desk.outcomes(task_id) == ["crashed"] * 3
        for run in desk.reader.executions(task_id):
            assert run["finished_at"] - run["started_at"] < timedelta(seconds=4), "and each death is noticed at once"
    for how, task_id in looping.items():
        eventually(f"what {how} to run again", lambda task_id=task_id: len(stock_diary.entries(task_id)) >= 3)
    assert desk.wait_for(desk.place("echo", {"input": "still here"}), "completed")["agent_id"] == agent.agent_id
    assert agent.container.status == "running"


def test_work_that_is_out_of_memory_ends_a_stock_worker_and_no_agent(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch(pool="prefork", **DEEDS)
    stock.send("trap.die", path=str(stock_diary.path), how="memory")
    worker = stock.launch()
    eventually("the stock worker to end", lambda: stock_diary.entries() and not worker.is_running())

    task_id = desk.place("trap.die", {"path": str(diary.path), "how": "memory"})
    desk.wait_for(task_id, "dead_lettered")
    assert agent.container.status == "running"


def test_work_that_is_not_to_be_lost_at_its_time_limit_runs_without_end_with_stock_celery_and_once_with_chiffon(
    remembering: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agents.launch(pool="prefork", **DEEDS)
    kept = {"task_acks_on_failure_or_timeout": False, "task_acks_on_timeout": False}
    remembering.launch(task_time_limit=1, task_track_started=False, **kept)
    stuck = remembering.send("trap.sign", path=str(stock_diary.path), seconds=60)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 60}, timeout=1)

    desk.wait_for(task_id, "timed_out")
    eventually("the stock worker to run it again and again", lambda: len(stock_diary.entries(stuck)) >= 3)
    assert remembering.state(stuck) == "FAILURE", "it says that it has ended"
    assert (len(diary.entries(task_id)), desk.outcomes(task_id)) == (1, ["timed_out"])


def test_threads_pass_their_time_limit_with_stock_celery_and_are_stopped_with_their_agent_by_chiffon(
    remembering: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch(pool="threads", **DEEDS)
    remembering.launch("-P", "threads", task_time_limit=1)
    endless = remembering.send("trap.sign", path=str(stock_diary.path), seconds=3)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 60}, timeout=1)

    desk.wait_for(task_id, "timed_out")
    eventually("the agent to end, for a thread cannot be stopped", lambda: agent.container.status == "exited")
    eventually("the stock worker to have done it all", lambda: remembering.state(endless) == "SUCCESS")
    assert [entry.note for entry in stock_diary.entries(endless)] == ["began", "done"]
    assert [entry.note for entry in diary.entries(task_id)] == ["began"]


def test_what_the_broker_gives_up_is_under_way_for_ever_with_stock_celery_and_has_an_end_with_chiffon(
    counting: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agents.launch(pool="prefork", queue_type="quorum", **DEEDS)
    counting.launch(**AGAIN)
    given_up = counting.send("trap.die", path=str(stock_diary.path), how="killed")
    task_id = desk.place("trap.die", {"path": str(diary.path), "how": "killed"})

    desk.wait_for(task_id, "dead_lettered")
    eventually("the broker to dead-letter it", lambda: counting.amqp.ready(DEAD) == 1)
    assert counting.state(given_up) == "STARTED", "nobody will ever say more"
    result = desk.result(task_id)
    assert result is not None
    assert result[0] == "FAILURE"
