"""What is urgent: a stock worker has fetched others before it knows; an agent fetches no more than it can do."""

from __future__ import annotations

from pathlib import Path

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.nodes import BrokerNode
from tests.e2e.waiting import eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


def test_urgent_work_waits_behind_what_a_stock_worker_has_fetched_and_is_next_with_chiffon(
    celery_broker: BrokerNode, tmp_path: Path, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    stock = Stock(celery_broker.url, tmp_path, arguments={"x-max-priority": 5})
    stock.declare()
    agents.launch(**DEEDS)
    stock.launch()

    def both(note: str, priority: int, seconds: float = 0.0) -> str:
        stock.send("trap.sign", priority=priority, path=str(stock_diary.path), note=note, seconds=seconds)
        parameters = {"path": str(diary.path), "note": note, "seconds": seconds}
        return desk.place("trap.sign", parameters, priority=priority)

    try:
        both("first", 1, seconds=10)
        eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())
        for task_id in [both("low", 1) for _ in range(5)]:
            desk.wait_for(task_id, "queued")
        eventually("the stock worker to fetch what it likes", lambda: stock.amqp.ready(QUEUE) == 2)
        desk.wait_for(both("HIGH", 5), "queued")

        eventually("all to be done", lambda: len(diary.entries()) == len(stock_diary.entries()) == 8)
    finally:
        stock.end()
    assert stock_diary.notes() == ["first", "done", "low", "low", "low", "HIGH", "low", "low"]
    assert diary.notes() == ["first", "done", "HIGH", "low", "low", "low", "low", "low"]
