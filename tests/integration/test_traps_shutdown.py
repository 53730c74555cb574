"""Workers that end: stock Celery drains without a limit and forgets who was cancelled; Chiffon does neither."""

from __future__ import annotations

import os
import signal

import psutil

from chiffon.devstack.guardian import lives
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.waiting import always, eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


def test_a_warm_shutdown_waits_without_limit_with_stock_celery_and_up_to_the_drain_limit_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch(drain_seconds=1, **DEEDS)
    worker = stock.launch()
    stock.send("trap.sign", path=str(stock_diary.path), seconds=300)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 300}, timeout=600)
    eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())

    worker.signal(signal.SIGTERM)
    os.kill(agent.container.pid, signal.SIGTERM)

    eventually("the agent to end", lambda: agent.container.status == "exited")
    task = desk.reader.task(task_id)
    assert task is not None
    assert task["status"] in {"pending", "queued"}
    assert (task["crashes"], task["agent_deaths"], task["give_backs"]) == (0, 0, 1), "it costs the work nothing"
    assert desk.outcomes(task_id) == ["given_back"]
    always("the stock worker's draining", worker.is_running, during=2)


def test_a_shutdown_with_a_limit_needs_a_signal_of_its_own_with_stock_celery_and_is_what_chiffon_always_does(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    limited = {"worker_soft_shutdown_timeout": 1.0, "worker_enable_soft_shutdown_on_idle": True}
    plain = stock.launch(**limited)
    stock.send("trap.sign", path=str(stock_diary.path), seconds=300)
    eventually("it to be at work", stock_diary.entries)
    plain.signal(signal.SIGTERM)
    eventually("it to drain", lambda: "Warm shutdown" in plain.tail(100))
    eventually("it to take nothing new", lambda: stock.amqp.consumers(QUEUE) == 0)
    remapped = stock.start(variables={"REMAP_SIGTERM": "SIGQUIT"}, **limited)
    again = stock.send("trap.sign", path=str(stock_diary.path), seconds=300)
    agent = agents.launch(drain_seconds=1, **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 300}, timeout=600)
    eventually("both to be at work", lambda: diary.entries() and stock_diary.entries(again))

    remapped.signal(signal.SIGTERM)
    os.kill(agent.container.pid, signal.SIGTERM)

    eventually("the stock worker to end", lambda: not remapped.is_running())
    eventually("its work to be back", lambda: stock.amqp.ready(QUEUE) == 1)
    eventually("the agent to end", lambda: agent.container.status == "exited")
    assert desk.outcomes(task_id) == ["given_back"]
    assert plain.is_running(), "by the usual signal its limit is none"


def test_a_main_process_that_is_killed_takes_its_children_along_and_its_work_is_done_again_by_both(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch("first", pool="prefork", **DEEDS)
    worker = stock.launch()
    redelivered = stock.send("trap.sign", path=str(stock_diary.path), seconds=5)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 5})
    eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())
    eventually("the agent to say so", lambda: (desk.reader.task(task_id) or {})["started_at"])
    children = [psutil.Process(entry.pid) for entry in (*diary.entries(), *stock_diary.entries())]
    assert {child.ppid() for child in children} == {worker.pid, agent.container.pid}

    worker.signal(signal.SIGKILL)
    os.kill(agent.container.pid, signal.SIGKILL)

    eventually("their children to be gone", lambda: not any(lives(child) for child in children))
    stock.launch("-c", "2")
    agents.launch("second", **DEEDS)
    eventually("the broker to hand it out again", lambda: len(stock_diary.entries(redelivered)) >= 2)
    task = desk.wait_for(task_id, "completed")
    assert (task["agent_deaths"], task["crashes"], task["attempts"]) == (1, 0, 2), "which stock Celery does not count"
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2, 2]
    assert desk.outcomes(task_id) == ["agent_lost", "completed"]


def test_a_cancel_is_forgotten_with_its_worker_by_stock_celery_and_outlives_the_agent_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agent = agents.launch("first", **DEEDS)
    worker = stock.launch()
    stock.send("trap.sign", path=str(stock_diary.path), seconds=300)
    running = desk.place("trap.sign", {"path": str(diary.path), "seconds": 300}, timeout=600)
    eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())
    revoked = stock.send("trap.sign", path=str(stock_diary.path))
    queued = desk.place("trap.sign", {"path": str(diary.path)})

    with stock.client() as client:
        client.control.revoke(revoked)
        eventually("the worker to have heard", lambda: f"Tasks flagged as revoked: {revoked}" in worker.tail(100))
    desk.cancel(queued)
    desk.cancel(running)
    worker.kill()
    agent.container.kill()
    agents.launch("second", **DEEDS)
    stock.launch("-c", "2")

    eventually("the revoked task to run", lambda: stock_diary.entries(revoked))
    desk.wait_for(running, "cancelled")
    after = desk.place("trap.sign", {"path": str(diary.path)})
    desk.wait_for(after, "completed")
    assert desk.status(queued) == "cancelled"
    assert diary.task_ids() == [running, after]
