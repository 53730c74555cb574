"""A broker that is killed, hangs or blocks costs a publisher a bounded time and no truth."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator

import amqp
import pytest

from chiffon.bus.connect import Connection, connect
from chiffon.bus.failback import takes_messages
from chiffon.bus.letters import Letter
from chiffon.bus.publisher import Publisher
from chiffon.bus.topology import Topology
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from chiffon.domain.errors import BrokerUnavailable
from tests.bells import bare_channel, bell, ids, letters
from tests.chaos.relay import Relays
from tests.e2e.waiting import eventually
from tests.proxy import through

LARGE = "x" * 200_000
MARGIN = 5.0  # seconds: a slow machine is no hang


@pytest.fixture
def url(rabbitmq: PrivateRabbitMQ) -> Iterator[str]:
    made = rabbitmq.create_vhost()
    yield made
    rabbitmq.resume()
    rabbitmq.start()
    rabbitmq.drop_vhost(made)


@pytest.fixture
def publisher(url: str) -> Iterator[Publisher]:
    with Publisher(url, Topology(), patience=2.0) as made:
        yield made


def large(count: int) -> list[Letter]:
    return [bell(number, parameters={"input": LARGE}).letter() for number in range(count)]


def drain_all(connection: Connection) -> None:
    while True:
        connection.drain_events()


def kill_when_it_has(rabbitmq: PrivateRabbitMQ, url: str, count: int) -> None:
    """Kill the broker once ``count`` messages are in `work_queue`."""
    deadline = time.monotonic() + 20
    with bare_channel(url) as channel:  # which looks without a pause: it must be in the middle
        while channel.queue_declare("work_queue", passive=True).message_count < count:
            assert time.monotonic() < deadline, "they never came"
    rabbitmq.kill()


def came(url: str) -> set[str]:
    """The message ids in `work_queue`, which is emptied."""
    found = set()
    with bare_channel(url) as channel:
        while message := channel.basic_get("work_queue", no_ack=True):
            found.add(message.properties["message_id"])
    return found


def test_what_was_confirmed_is_there_after_the_broker_was_killed_in_the_middle(
    rabbitmq: PrivateRabbitMQ, url: str, publisher: Publisher
) -> None:
    publisher.publish(letters(1))
    sent = large(1000)
    killer = threading.Thread(target=kill_when_it_has, args=(rabbitmq, url, 10))
    killer.start()
    receipt = publisher.publish(sent, within=60)
    killer.join()
    assert receipt.unconfirmed, "the broker was killed too late"
    assert receipt.confirmed | receipt.unconfirmed == ids(*sent)
    assert not publisher.connected
    with pytest.raises(BrokerUnavailable, match="does not answer"):
        publisher.publish(letters(1))
    rabbitmq.start()
    assert publisher.publish(letters(3)).confirmed == ids(*letters(3))
    assert receipt.confirmed | ids(*letters(3)) <= came(url)


def test_a_hanging_broker_is_left_in_time_with_its_socket(
    rabbitmq: PrivateRabbitMQ, url: str, publisher: Publisher
) -> None:
    publisher.publish(letters(1))
    rabbitmq.pause()
    began = time.monotonic()
    receipt = publisher.publish(letters(10), within=1)  # these fit into the socket: the wait is for the confirms
    assert time.monotonic() - began < 1 + MARGIN
    assert receipt.unconfirmed == ids(*letters(10))
    assert "did not answer in time" in receipt.why
    assert not publisher.connected
    began = time.monotonic()
    with pytest.raises(BrokerUnavailable):
        publisher.publish(letters(10), within=1)
    assert time.monotonic() - began < 2 + MARGIN
    rabbitmq.resume()
    assert publisher.publish(letters(10)).confirmed == ids(*letters(10))


@pytest.mark.parametrize("is_large", [False, True], ids=["says nothing", "takes nothing"])
def test_a_silent_broker_is_left_before_the_time_given_is_over(
    rabbitmq: PrivateRabbitMQ, publisher: Publisher, monkeypatch: pytest.MonkeyPatch, is_large: bool
) -> None:
    monkeypatch.setattr("chiffon.bus.confirms.SILENCE", 1.0)
    publisher.publish(letters(1))
    rabbitmq.pause()
    sent = large(200) if is_large else letters(10)
    began = time.monotonic()
    assert publisher.publish(sent, within=60).unconfirmed == ids(*sent)
    assert time.monotonic() - began < 2 + MARGIN


def test_a_socket_that_takes_no_more_bytes_is_left_in_time(
    rabbitmq: PrivateRabbitMQ, url: str, publisher: Publisher
) -> None:
    publisher.publish(letters(1))
    rabbitmq.pause()
    began = time.monotonic()
    sent = large(200)
    receipt = publisher.publish(sent, within=1)
    assert time.monotonic() - began < 1 + MARGIN
    assert receipt.unconfirmed == ids(*sent)
    assert not publisher.connected


def test_closing_does_not_wait_for_a_hanging_broker(rabbitmq: PrivateRabbitMQ, url: str) -> None:
    publisher, connection = Publisher(url, Topology(), patience=1.0), connect(url, name="test", patience=1.0)
    publisher.publish(letters(1))
    rabbitmq.pause()
    began = time.monotonic()
    publisher.close()
    connection.close()
    assert time.monotonic() - began < 2 + MARGIN


def test_a_memory_alarm_is_seen_waited_for_by_nobody_and_over_when_it_is_over(
    rabbitmq: PrivateRabbitMQ, url: str, publisher: Publisher
) -> None:
    publisher.publish(letters(1))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        began = time.monotonic()
        receipt = publisher.publish(letters(10), within=20)
        assert receipt.unconfirmed == ids(*letters(10))
        assert publisher.blocked
        assert "alarm" in receipt.why
        again = publisher.publish([bell(99).letter()], within=20)
        assert again.unconfirmed == ids(bell(99).letter())
        assert time.monotonic() - began < MARGIN
        large_ones = large(100)
        assert publisher.publish(large_ones, within=20).unconfirmed == ids(*large_ones)
        publisher.tend()
        assert publisher.connected
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    deadline = time.monotonic() + 20
    while not (receipt := publisher.publish(letters(2))).confirmed:
        assert time.monotonic() < deadline, receipt.why
    assert not publisher.blocked
    found = came(url)
    assert ids(*letters(2)) <= found
    assert bell(99).message_id not in found  # what came while it was blocked was not even written


def test_nobody_returns_to_a_broker_that_shakes_hands_and_takes_nothing(rabbitmq: PrivateRabbitMQ, url: str) -> None:
    with connect(url, name="a look") as connection:
        assert takes_messages(connection)
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        with connect(url, name="a look") as connection:
            assert not takes_messages(connection)
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
    assert eventually("the alarm to be over", lambda: _is_taken(url))


def _is_taken(url: str) -> bool:
    with connect(url, name="a look") as connection:
        return takes_messages(connection)


def test_an_alarm_met_while_writing_costs_no_more_than_the_time_given(
    rabbitmq: PrivateRabbitMQ, url: str, publisher: Publisher
) -> None:
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        began, sent = time.monotonic(), large(400)
        assert publisher.publish(sent, within=2).unconfirmed == ids(*sent)
        assert time.monotonic() - began < 2 + MARGIN
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def test_closing_does_not_wait_for_an_alarm(rabbitmq: PrivateRabbitMQ, url: str) -> None:
    publisher = Publisher(url, Topology(), patience=10.0)
    publisher.publish(letters(1))
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        publisher.publish(letters(1), within=20)
        began = time.monotonic()
        publisher.close()
        assert time.monotonic() - began < MARGIN
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def test_heartbeats_of_a_blocking_broker_do_not_make_a_wait_endless(rabbitmq: PrivateRabbitMQ, url: str) -> None:
    connection = connect(url, name="test", patience=3.0, heartbeat=1)
    channel = connection.channel()
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.0000001")
    try:
        channel.basic_publish(amqp.Message("x"), routing_key="nowhere")
        began = time.monotonic()
        with pytest.raises(TimeoutError):
            drain_all(connection)
        assert time.monotonic() - began < 6 + MARGIN
        assert connection.blocked
    finally:
        rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")
        connection.drop()


def test_a_broker_that_was_wiped_has_its_queues_again(rabbitmq: PrivateRabbitMQ) -> None:
    with Publisher(rabbitmq.url, Topology()) as publisher:
        publisher.publish(letters(1))
        rabbitmq.wipe()
        rabbitmq.start()
        assert publisher.publish(letters(2)).confirmed == ids(*letters(2))
        assert came(rabbitmq.url) == ids(*letters(2))


def test_a_publisher_that_was_led_to_the_next_broker_of_a_list_returns_when_the_first_answers(
    url: str, rabbitmq: PrivateRabbitMQ, relays: Relays, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.bus.failback.EVERY", 0.2)
    first = relays.before("127.0.0.1", rabbitmq.port)
    first.refuse(True)
    with Publisher(f"{through(first.port, url)};{url}", Topology()) as publisher:

        def place() -> int | None:
            publisher.tend()
            return publisher._connection.place if publisher._connection else None

        publisher.publish(letters(1))
        assert place() == 1
        first.refuse(False)
        first.fall_silent(True)  # it is there, and says nothing
        started = time.monotonic()
        for _ in range(20):
            assert publisher.publish(letters(1)).confirmed
        assert time.monotonic() - started < MARGIN
        assert place() == 1
        first.fall_silent(False)
        eventually("it to be at the first", lambda: place() == 0)
        assert publisher.publish(letters(1)).confirmed
