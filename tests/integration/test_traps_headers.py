"""What comes before a run, and what comes with it: vetoes and headers."""

from __future__ import annotations

from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


def test_a_signal_cannot_keep_a_stock_worker_from_a_task_and_the_ledger_keeps_an_agent_from_it(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary, amqp_client: RawAmqp
) -> None:
    agent = agents.start(**DEEDS)
    stock.launch(variables={"STOCK_VETO": "yes"})
    unwanted = stock.send("trap.sign", path=str(stock_diary.path))
    agent.container.kill()
    task_id = desk.place("trap.sign", {"path": str(diary.path)})
    desk.cancel(task_id)
    amqp_client.publish(b"[[], {}, null]", headers={"task": "trap.sign", "id": task_id, "chiffon_doorbell": 1})
    agents.launch("second", **DEEDS)

    eventually("the stock worker to run it all the same", lambda: stock_diary.entries(unwanted))
    desk.wait_for(desk.place("echo", {"input": "after"}), "completed")
    assert diary.entries(task_id) == []
    assert desk.outcomes(task_id) == []


def test_headers_of_the_sender_s_survive_a_retry_with_stock_celery(stock: Stock, stock_diary: Diary) -> None:
    stock.launch()
    sent = stock.send("trap.twice", headers={"tenant": "a"}, path=str(stock_diary.path))
    eventually("both runs", lambda: len(stock_diary.entries(sent)) == 2)
    assert stock_diary.notes() == ["a", "a"]


def test_headers_of_the_sender_s_survive_a_retry_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, amqp_client: RawAmqp
) -> None:
    agents.start(**DEEDS)
    with stock.client(task_default_exchange="work") as client:
        options = {"exchange": "work", "routing_key": "work_queue", "headers": {"tenant": "a"}}
        sent = client.send_task("trap.twice", kwargs={"path": str(diary.path)}, **options).id
    eventually("it to arrive", lambda: desk.status(sent) != "absent")
    desk.wait_for(sent, "completed")
    assert diary.notes() == ["a", "a"]
