"""Results while Postgres is away: stock Celery acknowledges the work and loses what it came to; Chiffon keeps it."""

from __future__ import annotations

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.nodes import LedgerNode
from tests.e2e.waiting import eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


def test_a_result_that_comes_while_postgres_is_away_is_lost_by_stock_celery_and_kept_by_chiffon(
    celery_backend: LedgerNode,
    database_url: str,
    stock: Stock,
    agents: Agents,
    desk: Desk,
    diary: Diary,
    stock_diary: Diary,
) -> None:
    stock.backend = f"db+{database_url.replace('postgresql:', 'postgresql+psycopg2:')}"
    agents.launch(**DEEDS)
    worker = stock.launch()
    lost = stock.send("trap.sign", path=str(stock_diary.path), seconds=3)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 3})
    eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())

    celery_backend.kill("SIGTERM")
    eventually("both to be done", lambda: len(diary.entries()) == len(stock_diary.entries()) == 2)
    eventually("the stock worker to give up", lambda: "Connection refused" in worker.tail(200), within=60)
    celery_backend.restart()

    desk.wait_for(task_id, "completed", within=60)
    assert desk.outcomes(task_id) == ["completed"]
    assert stock.lost(worker), "its message is acknowledged"
    assert stock.state(lost) == "STARTED", "and nobody will ever say more"
