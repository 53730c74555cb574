"""Messages on their way out: stock Celery loses them without a word, or hangs; Chiffon has them in the ledger."""

from __future__ import annotations

import amqp
import pytest
from celery import Celery
from kombu.exceptions import OperationalError

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.api import api
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

NOBODY = "amqp://127.0.0.1:1//"


def send_neighbours(client: Celery) -> None:
    """Send work that nothing is wrong with."""
    for _ in range(100):
        client.send_task("trap.sign", exchange=QUEUE, routing_key=QUEUE, retry=False)


def test_what_is_published_to_a_missing_exchange_is_lost_in_silence_by_stock_celery_and_rung_again_by_chiffon(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agents.start(ring_lease=0.2, **DEEDS)
    desk.wait_for(desk.place("echo", {"input": "before"}), "completed")
    with stock.client() as client:
        assert client.send_task("trap.sign", exchange="missing", routing_key="x").id, "it says that it has sent it"
        with pytest.raises(amqp.NotFound):
            send_neighbours(client)  # and an innocent one hears of it

    with amqp_client.channel() as channel:
        channel.exchange_delete("work")
    task_id = desk.place("echo", {"input": "meanwhile"})
    desk.wait_for(task_id, "completed")
    assert desk.outcomes(task_id) == ["completed"]


def test_what_no_queue_takes_is_lost_by_stock_celery_in_spite_of_confirms_and_is_never_queued_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agents.start(ring_lease=0.2, **DEEDS)
    desk.wait_for(desk.place("echo", {"input": "before"}), "completed")
    with stock.client(broker_transport_options={"confirm_publish": True}) as client:
        assert client.send_task("trap.sign", exchange="stock", routing_key="nowhere").id, "the broker has confirmed it"

    with amqp_client.channel() as channel:
        channel.queue_unbind("work_queue", "work", "work_queue")
    task_id = desk.place("echo", {"input": "meanwhile"})
    ring_no = "SELECT ring_no FROM tasks WHERE task_id = %s"
    eventually("it to be rung in vain", lambda: desk.reader.rows(ring_no, task_id)[0]["ring_no"] >= 3)
    assert desk.history(task_id) == ["pending"], "what was returned does not count as rung"
    with amqp_client.channel() as channel:
        channel.queue_bind("work_queue", "work", "work_queue")
    desk.wait_for(task_id, "completed", within=60)


def test_a_broker_that_is_short_of_memory_holds_up_a_stock_client_without_bound_and_no_client_of_chiffon(
    mortal_broker: BrokerNode, rabbitmq: PrivateRabbitMQ, stock: Stock, agents: Agents, desk: Desk
) -> None:
    agents.start(**DEEDS)
    client = api(database_url=desk.url, broker_url=mortal_broker.url)
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        confirming = {"confirm_publish": True, "confirm_timeout": 1}
        sender = stock.launch_sender(broker_transport_options=confirming)
        accepted = client.post("/dispatch", json={"work_type": "echo", "parameters": {"input": "meanwhile"}})
        assert accepted.status_code == 202
        always("the stock client's hanging", sender.is_running, during=5)
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    desk.wait_for(accepted.json["task_id"], "completed")


def test_a_broker_that_is_away_costs_stock_celery_the_work_and_chiffon_a_moment(
    desk: Desk, agents: Agents, stock: Stock
) -> None:
    with stock.client(broker_url=NOBODY, task_publish_retry=False) as lost, pytest.raises(OperationalError):
        lost.send_task("trap.sign")

    client = api(database_url=desk.url, broker_url=NOBODY, ring_lease=0.2)
    accepted = client.post("/dispatch", json={"work_type": "echo", "parameters": {"input": "meanwhile"}})
    assert accepted.status_code == 202
    agents.launch(**DEEDS)
    desk.wait_for(accepted.json["task_id"], "completed")
