"""How deep the queues are, by AMQP alone and with the management API."""

from __future__ import annotations

import time
from collections.abc import Iterator

import pytest

from chiffon.bus.connect import Connection, connect
from chiffon.bus.depths import Depth, depths
from chiffon.bus.publisher import Publisher
from chiffon.bus.topology import Topology
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.bells import bell, letters

TOPOLOGY = Topology(families=("work_queue", "work_queue.gpu"))


@pytest.fixture
def connection(broker_url: str) -> Iterator[Connection]:
    with connect(broker_url, name="test") as opened:
        yield opened


def test_ready_and_consumers_of_every_queue(connection: Connection, broker_url: str) -> None:
    with Publisher(broker_url, TOPOLOGY) as publisher:
        publisher.publish([*letters(3), bell(9, queue="work_queue.gpu").letter()])
    connection.channel().basic_consume("dlx_queue")
    assert depths(connection, TOPOLOGY) == [
        Depth("work_queue", ready=3, consumers=0),
        Depth("work_queue.gpu", ready=1, consumers=0),
        Depth("dlx_queue", ready=0, consumers=1),
    ]


def test_queues_that_are_not_there_are_empty(connection: Connection) -> None:
    assert depths(connection, TOPOLOGY) == [Depth(name, 0, 0) for name in (*TOPOLOGY.queue_names, "dlx_queue")]


def test_unacked_comes_from_the_management_api(rabbitmq: PrivateRabbitMQ) -> None:
    url = rabbitmq.create_vhost()
    with Publisher(url, TOPOLOGY) as publisher, connect(url, name="test") as connection:
        publisher.publish(letters(2))
        connection.channel().basic_get("work_queue")
        deadline = time.monotonic() + 30  # the API's figures are some seconds old
        while (first := depths(connection, TOPOLOGY, rabbitmq.management_url)[0]).unacked != 1:
            assert time.monotonic() < deadline, first
        assert first == Depth("work_queue", ready=1, consumers=0, unacked=1)
    rabbitmq.drop_vhost(url)


@pytest.mark.parametrize("management_url", ["http://127.0.0.1:1", "http://127.0.0.1:1/prefix/"])
def test_a_management_api_that_does_not_answer_leaves_the_rest(
    connection: Connection, broker_url: str, management_url: str, caplog: pytest.LogCaptureFixture
) -> None:
    TOPOLOGY.declare(connection)
    assert depths(connection, TOPOLOGY, management_url)[0] == Depth("work_queue", 0, 0, None)
    assert "management API" in caplog.text
