"""Everything is declared on a real broker, again and again, and a broker that disagrees is told apart."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Literal

import amqp
import pytest
from kombu import Connection as KombuConnection

from chiffon.bus.connect import Connection, connect, version_of
from chiffon.bus.topology import Topology, TopologyMismatch, _tell_of_older
from chiffon.domain.errors import BrokerUnavailable
from tests.bells import bare_channel
from tests.log_notes import LogNotes
from tests.racing import until

QueueType = Literal["classic", "quorum"]


@pytest.fixture
def connection(broker_url: str) -> Iterator[Connection]:
    with connect(broker_url, name="test") as opened:
        yield opened


@pytest.fixture(params=["classic", "quorum"])
def topology(request: pytest.FixtureRequest) -> Topology:
    return Topology(request.param, ("work_queue.gpu",))


def test_declaring_twice_and_from_any_connection_is_as_good_as_once(
    connection: Connection, broker_url: str, topology: Topology
) -> None:
    topology.declare(connection)
    topology.declare(connection.channel())
    with KombuConnection(broker_url) as kombus:
        topology.declare(kombus)
    channel = connection.channel()
    for name in ("work_queue", "work_queue.gpu", "dlx_queue"):
        assert channel.queue_declare(name, passive=True).message_count == 0


def test_a_rejected_message_goes_to_the_dead_letters_with_its_reason(
    connection: Connection, topology: Topology
) -> None:
    topology.declare(connection)
    channel = connection.channel()
    channel.confirm_select()
    channel.basic_publish_confirm(amqp.Message("x", delivery_mode=2), exchange="work", routing_key="work_queue.gpu")
    rejected = channel.basic_get("work_queue.gpu")
    channel.basic_reject(rejected.delivery_tag, requeue=False)
    dead = until(lambda: channel.basic_get("dlx_queue", no_ack=True))
    (death,) = dead.headers["x-death"]
    assert (death["queue"], death["reason"]) == ("work_queue.gpu", "rejected")


def test_higher_priorities_come_first_where_the_broker_can(connection: Connection, topology: Topology) -> None:
    topology.declare(connection)
    channel = connection.channel()
    channel.confirm_select()
    for priority in (1, 3, 5, 2, 4):
        message = amqp.Message(str(priority), priority=priority, delivery_mode=2)
        channel.basic_publish_confirm(message, exchange="work", routing_key="work_queue")
    came = [int(channel.basic_get("work_queue", no_ack=True).body) for _ in range(5)]
    strict = topology.queue_type == "classic" or version_of(connection) >= (4, 3)
    assert came == ([5, 4, 3, 2, 1] if strict else [1, 3, 5, 2, 4])


def test_a_bare_client_that_declares_what_the_contract_says_agrees(connection: Connection, broker_url: str) -> None:
    Topology().declare(connection)
    arguments = {"x-max-priority": 5, "x-dead-letter-exchange": "dlx_exchange"}
    with bare_channel(broker_url) as channel:
        channel.exchange_declare("work", "direct", durable=True, auto_delete=False)
        channel.exchange_declare("dlx_exchange", "fanout", durable=True, auto_delete=False)
        channel.queue_declare("work_queue", durable=True, auto_delete=False, arguments=arguments)
        channel.queue_declare("dlx_queue", durable=True, auto_delete=False)


def test_a_queue_with_other_arguments_is_named_with_what_to_do(connection: Connection) -> None:
    connection.channel().queue_declare("work_queue.gpu", durable=True, auto_delete=False)
    channel = connection.channel()
    with pytest.raises(TopologyMismatch, match=r"'work_queue\.gpu'.*inequivalent.*delete_queue work_queue\.gpu"):
        Topology(families=("work_queue.gpu",)).declare(channel)
    assert channel.queue_declare("dlx_queue", passive=True)  # the caller's channel is still open


def test_the_other_queue_type_is_a_mismatch_too(connection: Connection) -> None:
    Topology("classic").declare(connection)
    with pytest.raises(TopologyMismatch, match="CHIFFON_QUEUE_TYPE"):
        Topology("quorum").declare(connection)


@pytest.mark.parametrize("older", [(3, 9), (3, 13)])
def test_a_quorum_queue_that_the_broker_has_from_before_its_upgrade_is_used_as_it_is(
    connection: Connection, monkeypatch: pytest.MonkeyPatch, older: tuple[int, int]
) -> None:
    topology = Topology("quorum", ("work_queue.gpu",))
    with monkeypatch.context() as before:
        before.setattr("chiffon.bus.topology.version_of", lambda _: min(older, version_of(connection)))
        topology.declare(connection)
    noted = LogNotes()
    monkeypatch.setattr("chiffon.bus.topology.log", noted)
    _tell_of_older.cache_clear()

    topology.declare(connection)
    topology.declare(connection.channel())

    told = [line["queue"] for line in noted.said("queue_of_an_older_broker")]
    is_asked_for_more = older == (3, 9) or version_of(connection) >= (4, 0)  # the broker of this test may be a 3.10
    assert told == (list(topology.queue_names) if is_asked_for_more else [])


def test_a_quorum_queue_with_an_argument_of_somebody_elses_is_still_a_mismatch(connection: Connection) -> None:
    arguments = {"x-queue-type": "quorum", "x-dead-letter-exchange": "dlx_exchange", "x-delivery-limit": 7}
    connection.channel().queue_declare("work_queue", durable=True, auto_delete=False, arguments=arguments)
    with pytest.raises(TopologyMismatch, match=r"inequivalent arg 'x-delivery-limit'.*delete_queue work_queue"):
        Topology("quorum").declare(connection)


def test_a_wrong_password_and_a_wrong_virtual_host_are_told_apart(broker_url: str) -> None:
    scheme, _, rest = broker_url.partition("://")
    _, _, place = rest.rpartition("@")
    with pytest.raises(BrokerUnavailable, match="check user and password"):
        connect(f"{scheme}://nobody:wrong@{place}", name="test")
    with pytest.raises(BrokerUnavailable, match="refuses the virtual host"):
        connect(broker_url.rpartition("/")[0] + "/not-there", name="test")


def test_the_next_broker_of_a_list_is_taken_when_the_first_is_down(broker_url: str) -> None:
    with connect(f"amqp://127.0.0.1:1//;{broker_url}", name="test") as opened:
        assert version_of(opened) >= (3, 0)
