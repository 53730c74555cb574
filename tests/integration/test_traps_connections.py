"""A connection or a channel that ends under running work: stock Celery runs it twice, or exits; Chiffon goes on."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.broker_reader import unacknowledged
from tests.e2e.diary import Diary
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually
from tests.proxy import Proxy
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

SHORT = "application:set_env(rabbit, consumer_timeout, 2000), application:set_env(rabbit, channel_tick_interval, 500)."
USUAL = (
    "application:set_env(rabbit, consumer_timeout, 1800000), application:set_env(rabbit, channel_tick_interval, 60000)."
)


@pytest.fixture
def impatient(mortal_broker: BrokerNode, rabbitmq: PrivateRabbitMQ) -> Iterator[PrivateRabbitMQ]:
    """The private broker, with an acknowledgement timeout of two seconds in place of half an hour."""
    rabbitmq.ctl("eval", SHORT)
    yield rabbitmq
    rabbitmq.ctl("eval", USUAL)


def test_work_goes_on_twice_after_a_lost_connection_with_stock_celery_and_once_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    with Proxy.before(stock.broker_url) as proxy:
        agents.launch(concurrency=2, broker_url=proxy.url(stock.broker_url), **DEEDS)
        stock.launch("-c", "2", broker_url=proxy.url(stock.broker_url))
        doubled = stock.send("trap.sign", path=str(stock_diary.path), seconds=8)
        task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 8})
        eventually("both to be at work", lambda: diary.entries() and stock_diary.entries())

        proxy.cut()

        eventually("the stock worker to do it beside itself", lambda: len(stock_diary.entries(doubled)) >= 2)
        assert [entry.note for entry in stock_diary.entries(doubled)][:2] == ["began", "began"]
        desk.wait_for(task_id, "completed")
        after = desk.place("trap.sign", {"path": str(diary.path)})
        desk.wait_for(after, "completed")
    assert [entry.note for entry in diary.entries(task_id)] == ["began", "done"]
    assert desk.outcomes(task_id) == ["completed"]


def test_a_channel_that_is_reopened_has_long_work_begin_again_and_again_with_stock_celery_and_once_with_chiffon(
    impatient: PrivateRabbitMQ, stock: Stock, agents: Agents, desk: Desk, diary: Diary, stock_diary: Diary
) -> None:
    agents.launch(ack_after=1, **DEEDS)
    worker = stock.launch("-c", "4", broker_channel_error_retry=True)
    overlapping = stock.send("trap.sign", path=str(stock_diary.path), seconds=300)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 8})

    eventually("the stock worker to do it beside itself", lambda: len(stock_diary.entries(overlapping)) >= 3)
    assert {entry.note for entry in stock_diary.entries(overlapping)} == {"began"}, "none of them has ended"
    assert worker.is_running()
    desk.wait_for(task_id, "completed")
    assert [entry.note for entry in diary.entries(task_id)] == ["began", "done"]
    assert desk.outcomes(task_id) == ["completed"]


def test_work_longer_than_the_brokers_patience_ends_a_stock_worker_and_is_done_by_chiffon(
    impatient: PrivateRabbitMQ,
    stock: Stock,
    agents: Agents,
    desk: Desk,
    diary: Diary,
    stock_diary: Diary,
    amqp_client: RawAmqp,
) -> None:
    agent = agents.launch(ack_after=1, **DEEDS)
    worker = stock.launch()
    stock.send("trap.sign", path=str(stock_diary.path), seconds=8)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 8})

    eventually("the stock worker to give up", lambda: "PreconditionFailed" in worker.log.read_text())
    assert stock_diary.entries()
    eventually("its message to be back", lambda: stock.amqp.ready(QUEUE) == 1)
    always("nobody there for it", lambda: stock.amqp.consumers(QUEUE) == 0, during=3)  # its end itself may take long
    desk.wait_for(task_id, "completed")

    assert [entry.note for entry in diary.entries(task_id)] == ["began", "done"]
    assert desk.outcomes(task_id) == ["completed"]
    assert "PRECONDITION_FAILED" not in agent.logs(), "its channel was closed"
    assert amqp_client.ready("work_queue") == amqp_client.ready("dlx_queue") == 0


def test_a_message_that_the_broker_takes_back_for_its_age_rings_for_a_run_that_goes_on_alone(
    impatient: PrivateRabbitMQ, agents: Agents, desk: Desk, diary: Diary, amqp_client: RawAmqp
) -> None:
    team = agents.start_team("first", "second", concurrency=2, ack_after=600, **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 20})
    eventually("the run to be under way", lambda: diary.notes(task_id) == ["began"])
    (run,) = desk.reader.executions(task_id)
    holder = next(agent for agent in team if agent.agent_id == run["agent_id"])

    eventually("the broker to close its channel", lambda: "PRECONDITION_FAILED" in holder.logs())
    eventually("both to consume", lambda: amqp_client.consumers("work_queue") == len(team))
    eventually("its message to be dealt with", lambda: unacknowledged(impatient, amqp_client.url) == 0)
    assert diary.notes(task_id) == ["began"], "the run was over before the message came again"

    desk.wait_for(task_id, "completed")
    together = desk.place_all("trap.sign", [{"path": str(diary.path), "seconds": 1}] * 4)
    for later in together:
        desk.wait_for(later, "completed")
    assert {desk.reader.executions(later)[0]["agent_id"] for later in together} == {a.agent_id for a in team}
    assert diary.notes(task_id) == ["began", "done"]
    assert desk.outcomes(task_id) == ["completed"]
    assert amqp_client.ready("work_queue") == amqp_client.ready("dlx_queue") == 0
