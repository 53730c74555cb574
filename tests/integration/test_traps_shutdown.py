"""Workers that end: stock Celery drains without a limit and forgets who was cancelled; Chiffon does neither."""

from __future__ import annotations

import os
import signal

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.waiting import always, eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock

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
