"""What a real broker takes is confirmed, what it does not take is said, and no letter pays for another."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from typing import Any

import amqp
import pytest

from chiffon.bus.confirms import Confirms
from chiffon.bus.letters import Letter, Message
from chiffon.bus.publisher import Publisher
from chiffon.bus.topology import Topology, TopologyMismatch
from chiffon.domain.errors import BrokerUnavailable
from tests.bells import bare_channel, bell, dead_letter, ids, letters

UNROUTABLE = Letter("work", "nobody-listens", Message("unroutable", b"x"))
NO_EXCHANGE = Letter("not-there", "work_queue", Message("no-exchange", b"x"))


@pytest.fixture(params=["classic", "quorum"])
def topology(request: pytest.FixtureRequest) -> Topology:
    return Topology(request.param)


@pytest.fixture
def publisher(broker_url: str, topology: Topology) -> Iterator[Publisher]:
    with Publisher(broker_url, topology) as made:
        yield made


@pytest.fixture
def client(broker_url: str) -> Iterator[Any]:
    with bare_channel(broker_url) as channel:
        yield channel


def count(client: Any, queue: str = "work_queue") -> int:
    return int(client.queue_declare(queue, passive=True).message_count)


def test_everything_is_confirmed_and_there_once(publisher: Publisher, client: Any) -> None:
    sent = letters(1200)
    receipt = publisher.publish(sent)
    assert receipt.confirmed == ids(*sent)
    assert (receipt.returned, receipt.unconfirmed, receipt.why) == (frozenset(), frozenset(), "")
    came = [client.basic_get("work_queue", no_ack=True).properties["message_id"] for _ in sent]
    assert came == [letter.message.message_id for letter in sent]
    assert client.basic_get("work_queue") is None


def test_a_doorbell_arrives_as_it_was_said(publisher: Publisher, client: Any) -> None:
    letter = bell(parameters={"input": "schön", "n": [1, None, {"x": True}]}, headers={"group_index": 2}).letter()
    publisher.publish([letter])
    came = client.basic_get("work_queue", no_ack=True)
    headers = {name: value for name, value in came.headers.items() if name != "x-delivery-count"}
    assert headers == letter.message.headers
    assert came.body == letter.message.body
    said = dict(letter.message.properties) | {"message_id": letter.message.message_id}
    assert {name: came.properties[name] for name in said} == said


def test_a_letter_that_no_queue_takes_is_returned_though_its_neighbours_are_confirmed_with_it(
    publisher: Publisher, client: Any
) -> None:
    first, *rest = letters(400)
    receipt = publisher.publish([first, UNROUTABLE, *rest])
    assert receipt.returned == ids(UNROUTABLE)
    assert receipt.confirmed == ids(first, *rest)
    assert receipt.unconfirmed == frozenset()


def test_a_letter_over_which_the_broker_closes_the_channel_delays_no_neighbour(
    publisher: Publisher, client: Any
) -> None:
    sent = letters(30)
    receipt = publisher.publish([*sent[:17], NO_EXCHANGE, *sent[17:]])
    assert receipt.confirmed == ids(*sent)
    assert receipt.unconfirmed == ids(NO_EXCHANGE)
    assert "no exchange 'not-there'" in receipt.why
    assert publisher.publish(letters(1)).confirmed


def test_what_a_full_queue_refuses_is_not_confirmed(publisher: Publisher, client: Any) -> None:
    arguments = {"x-max-length": 1, "x-overflow": "reject-publish"}
    client.queue_declare("full", durable=True, auto_delete=False, arguments=arguments)
    full = [Letter("", "full", Message(f"full-{number}", b"x", {}, {"delivery_mode": 2})) for number in range(10)]
    neighbour = bell().letter()
    receipt = publisher.publish([*full, neighbour])
    assert receipt.confirmed == ids(full[0], neighbour)
    assert receipt.unconfirmed == receipt.refused == ids(*full[1:])
    assert "full" in receipt.why


def test_a_letter_that_amqp_cannot_say_delays_no_neighbour(publisher: Publisher, client: Any) -> None:
    odd = bell(99, headers={"stamps": {"n": 2**80}}).letter()
    receipt = publisher.publish([*letters(3), odd])
    assert receipt.confirmed == ids(*letters(3))
    assert receipt.refused == ids(odd)


def test_a_debt_is_paid_to_the_dead_letters(publisher: Publisher, client: Any) -> None:
    debt = dead_letter(bell(), "crashed 3 times")
    assert publisher.publish([debt]).confirmed == ids(debt)
    assert client.basic_get("dlx_queue", no_ack=True).headers["chiffon_reason"] == "crashed 3 times"


def test_what_was_deleted_is_declared_again_by_the_next_connection(publisher: Publisher, client: Any) -> None:
    publisher.publish(letters(1))
    for queue in ("work_queue", "dlx_queue"):
        client.queue_delete(queue)
    for exchange in ("work", "dlx_exchange"):
        client.exchange_delete(exchange)
    receipt = publisher.publish(letters(2))  # its exchange gone, the channel closes; both halves then find it again
    assert receipt.confirmed == ids(*letters(2))
    assert count(client) == 2
    assert count(client, "dlx_queue") == 0


def test_a_single_letter_waits_for_the_next_call_when_its_exchange_is_gone(publisher: Publisher, client: Any) -> None:
    publisher.publish(letters(1))
    client.exchange_delete("work")
    assert publisher.publish(letters(1)).unconfirmed == ids(*letters(1))
    assert publisher.publish(letters(1)).confirmed == ids(*letters(1))


def test_a_connection_that_the_broker_closed_while_idle_costs_no_letter(publisher: Publisher, client: Any) -> None:
    publisher.publish(letters(1))
    assert publisher._connection is not None
    publisher._connection.transport.sock.shutdown(2)
    assert publisher.connected
    assert publisher.publish(letters(1)).confirmed == ids(*letters(1))
    assert publisher._connection is not None
    publisher._connection.transport.sock.shutdown(2)
    publisher.tend()
    assert not publisher.connected


def test_queues_that_differ_are_told_and_nothing_is_published(broker_url: str, client: Any) -> None:
    client.queue_declare("work_queue", durable=True, auto_delete=False)
    with Publisher(broker_url, Topology()) as publisher, pytest.raises(TopologyMismatch, match="work_queue"):
        publisher.publish(letters(1))
    assert count(client) == 0


def test_two_letters_with_one_message_id_are_refused(publisher: Publisher) -> None:
    with pytest.raises(ValueError, match="same message_id"):
        publisher.publish([bell().letter(), bell().letter()])


def test_nothing_to_publish_needs_no_broker() -> None:
    assert Publisher("amqp://127.0.0.1:1//", Topology()).publish([]).confirmed == frozenset()


def test_another_thread_is_told_to_make_its_own(publisher: Publisher) -> None:
    publisher.publish(letters(1))
    told: list[Exception] = []

    def trespass() -> None:
        try:
            publisher.tend()
        except RuntimeError as error:
            told.append(error)

    thread = threading.Thread(target=trespass)
    thread.start()
    thread.join()
    assert "one thread" in str(told[0])


def test_the_connection_has_a_name_that_the_broker_shows(broker_url: str) -> None:
    with Publisher(broker_url, Topology(), name="chiffon ringer") as publisher:
        publisher.publish(letters(1))
        assert isinstance(publisher._connection, amqp.Connection)
        assert publisher._connection.client_properties["connection_name"] == "chiffon ringer"


def test_a_publisher_stays_where_it_is_while_the_earlier_broker_is_of_no_use(
    publisher: Publisher, monkeypatch: pytest.MonkeyPatch
) -> None:
    """It shakes hands, say, and has other queues."""

    def refuse() -> Confirms:
        raise BrokerUnavailable("other queues")

    assert publisher.publish(letters(1)).confirmed == ids(*letters(1))
    monkeypatch.setattr(publisher._failback, "is_due", lambda place: True)
    monkeypatch.setattr(publisher, "_connect", refuse)
    assert publisher.publish(letters(2)).confirmed == ids(*letters(2))
