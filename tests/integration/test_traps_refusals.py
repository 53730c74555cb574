"""Messages that the broker refuses: stock Celery does not notice, or raises; Chiffon rings until they are taken."""

from __future__ import annotations

import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp
import pytest
from kombu.exceptions import OperationalError

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.api import api
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.nodes import BrokerNode
from tests.e2e.waiting import eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

CONFIRMING: dict[str, Any] = {"broker_transport_options": {"confirm_publish": True}}
FULL = {"x-max-length": 1, "x-overflow": "reject-publish"}
PATIENT = {"max_retries": 5, "interval_start": 2, "interval_step": 0, "interval_max": 2}
"""A policy of five retries, two seconds apart."""


@pytest.fixture
def full(celery_broker: BrokerNode, tmp_path: Path) -> Iterator[Stock]:
    """Stock Celery on a queue that takes one message, and has it."""
    found = Stock(celery_broker.url, tmp_path, arguments=FULL)
    found.declare()
    found.send("trap.sign", path="/dev/null")
    yield found
    found.end()


@pytest.fixture
def full_work_queue(mortal_broker: BrokerNode, rabbitmq: PrivateRabbitMQ) -> str:
    """The virtual host in which Chiffon's queue takes no message, until the policy `full` is cleared."""
    vhost = unquote(urlsplit(mortal_broker.url).path[1:])
    policy = '{"max-length": 0, "overflow": "reject-publish"}'
    rabbitmq.ctl("set_policy", "-p", vhost, "full", "^work_queue$", policy, "--apply-to", "queues")
    return vhost


def test_what_a_full_queue_refuses_is_lost_in_silence_by_stock_celery(full: Stock) -> None:
    with full.client() as client:
        for _ in range(3):
            assert client.send_task("trap.sign", exchange=QUEUE, routing_key=QUEUE).id, "it says that it has sent it"
    assert full.amqp.ready(QUEUE) == 1, "and there is only the one that was there before"


def test_a_full_queue_costs_stock_celery_the_work_at_once_whatever_its_retry_policy_says(full: Stock) -> None:
    began = time.monotonic()
    with full.client(**CONFIRMING) as client, pytest.raises(OperationalError) as raised:
        client.send_task("trap.sign", exchange=QUEUE, routing_key=QUEUE, retry=True, retry_policy=PATIENT)
    assert isinstance(raised.value.__cause__, amqp.exceptions.MessageNacked)
    assert time.monotonic() - began < PATIENT["interval_start"]


def test_mandatory_raises_what_nobody_expects_with_stock_celery(stock: Stock) -> None:
    with stock.client(**CONFIRMING) as client, pytest.raises(amqp.ChannelError, match="312") as raised:
        client.send_task("trap.sign", exchange=QUEUE, routing_key="nowhere", mandatory=True)
    assert not isinstance(raised.value, OperationalError), "which is all that its users are told to catch"


def test_what_a_full_queue_refuses_waits_in_chiffon_until_there_is_room(
    full_work_queue: str, rabbitmq: PrivateRabbitMQ, mortal_broker: BrokerNode, agents: Agents, desk: Desk
) -> None:
    client = api(database_url=desk.url, broker_url=mortal_broker.url, ring_lease=0.2)
    accepted = client.post("/dispatch", json={"work_type": "echo", "parameters": {"input": "patience"}})
    assert accepted.status_code == 202
    assert accepted.json is not None
    task_id = accepted.json["task_id"]
    agents.start(ring_lease=0.2, **DEEDS)
    ring_no = "SELECT ring_no FROM tasks WHERE task_id = %s"
    eventually("it to be rung in vain", lambda: desk.reader.rows(ring_no, task_id)[0]["ring_no"] >= 3)
    assert desk.history(task_id) == ["pending"], "what was refused does not count as rung"

    rabbitmq.ctl("clear_policy", "-p", full_work_queue, "full")
    desk.wait_for(task_id, "completed", within=60)
    assert desk.outcomes(task_id) == ["completed"]
