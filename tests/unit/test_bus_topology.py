"""What is asked of a broker follows its version."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chiffon.bus.connect import version_of
from chiffon.bus.topology import Topology
from chiffon.domain.work import WorkTypes, work

VERSIONS = [(0, 0), (3, 9), (3, 10), (3, 13), (4, 0), (4, 2), (4, 3), (5, 0)]


@pytest.mark.parametrize("version", VERSIONS)
def test_classic_queues_have_five_priorities_and_dead_letters_everywhere(version: tuple[int, int]) -> None:
    (queue,) = Topology().work_queues(version)
    assert queue.durable
    assert (queue.exchange.name, queue.exchange.type, queue.exchange.durable) == ("work", "direct", True)
    assert queue.queue_arguments == {"x-max-priority": 5, "x-dead-letter-exchange": "dlx_exchange"}


@pytest.mark.parametrize("version", VERSIONS)
def test_no_quorum_queue_asks_for_priorities_which_every_broker_refuses(version: tuple[int, int]) -> None:
    topology = Topology("quorum")
    for queue in (*topology.work_queues(version), topology.dead_letter_queue(version)):
        assert queue.queue_arguments["x-queue-type"] == "quorum"
        assert "x-max-priority" not in queue.queue_arguments


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ((0, 0), set()),
        ((3, 9), set()),
        ((3, 10), {"x-dead-letter-strategy", "x-overflow"}),
        ((4, 0), {"x-dead-letter-strategy", "x-overflow", "x-delivery-limit"}),
        ((4, 3), {"x-dead-letter-strategy", "x-overflow", "x-delivery-limit"}),
    ],
)
def test_a_quorum_queue_has_the_safety_that_its_broker_knows(version: tuple[int, int], expected: set[str]) -> None:
    (queue,) = Topology("quorum").work_queues(version)
    assert set(queue.queue_arguments) == expected | {"x-queue-type", "x-dead-letter-exchange"}


def test_the_dead_letter_queue_is_never_a_priority_queue_and_has_no_dead_letters_of_its_own() -> None:
    queue = Topology().dead_letter_queue()
    assert (queue.name, queue.exchange.name, queue.exchange.type) == ("dlx_queue", "dlx_exchange", "fanout")
    assert queue.queue_arguments == {}


def test_no_number_of_looks_is_the_end_of_a_dead_letter() -> None:
    for version in ((3, 10), (4, 0), (4, 3)):
        assert Topology("quorum").dead_letter_queue(version).queue_arguments["x-delivery-limit"] >= 10**9
    assert Topology("quorum").dead_letter_queue((0, 0)).queue_arguments == {"x-queue-type": "quorum"}


def test_the_queues_are_those_of_the_work_types_each_once() -> None:
    types = WorkTypes()
    work("train", queue="gpu", into=types)(lambda: None)
    work("echo", into=types)(lambda: None)
    queues = Topology(families=types.queues).work_queues()
    assert [queue.name for queue in queues] == ["work_queue", "work_queue.gpu"]
    assert [queue.routing_key for queue in queues] == ["work_queue", "work_queue.gpu"]


def test_a_consumer_can_be_given_queues_that_it_does_not_declare() -> None:
    (queue,) = Topology().work_queues(no_declare=True)
    assert queue.no_declare
    assert queue.exchange.no_declare


@pytest.mark.parametrize(
    ("product", "version", "expected"),
    [
        ("RabbitMQ", "3.10.8", (3, 10)),
        ("RabbitMQ", "4.3.0-beta.2", (4, 3)),
        ("RabbitMQ", "11.0", (11, 0)),
        ("RabbitMQ", "", (0, 0)),
        ("LavinMQ", "4.3.0", (0, 0)),
        (None, None, (0, 0)),
    ],
)
def test_the_version_is_that_of_the_handshake(product: str, version: str, expected: tuple[int, int]) -> None:
    handshake = {"product": product, "version": version}
    assert version_of(SimpleNamespace(server_properties=handshake)) == expected
