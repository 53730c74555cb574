"""What a real broker takes from a careless client does not stop our readers, and is dead-lettered as it came."""

from __future__ import annotations

import zlib
from collections.abc import Iterator
from typing import Any

import amqp
import kombu
import pytest

from chiffon.bus.connect import Connection, connect
from chiffon.bus.dead_letters import look
from chiffon.bus.frames import UNREADABLE, frame_handler
from chiffon.bus.inflate import message_factory
from chiffon.bus.topology import Topology
from tests.bells import UNREADABLE_PROPERTIES, RawProperties, bare_channel
from tests.racing import until


@pytest.fixture
def connection(broker_url: str) -> Iterator[Connection]:
    with connect(broker_url, name="test") as opened:
        Topology().declare(opened)
        yield opened


@pytest.fixture
def agents(broker_url: str) -> Iterator[kombu.Connection]:
    """A connection as Celery makes it from ``broker_transport_options``."""
    with kombu.Connection(broker_url, transport_options={"frame_handler": frame_handler}) as opened:
        yield opened


def consume(agents: kombu.Connection, count: int) -> list[Any]:
    """What a kombu consumer, reading as our agents do, was handed: messages, or pairs of one and its error."""
    came: list[Any] = []
    channel = agents.channel()
    channel.message_to_python = message_factory(channel, 1000)
    with kombu.Consumer(
        channel,
        queues=Topology().work_queues(no_declare=True),
        on_message=came.append,
        on_decode_error=lambda message, error: came.append((message, error)),
        accept=["json"],
    ):
        while len(came) < count:
            agents.drain_events(timeout=10)
    return came


@pytest.mark.parametrize("name", UNREADABLE_PROPERTIES)
def test_a_message_that_ends_a_stock_connection_is_rejected_as_it_came(
    name: str, connection: Connection, agents: kombu.Connection, broker_url: str
) -> None:
    encoded = UNREADABLE_PROPERTIES[name]
    with bare_channel(broker_url) as careless:
        careless.basic_publish(RawProperties("body", encoded), exchange="work", routing_key="work_queue")
        with pytest.raises((ValueError, OverflowError, RecursionError)):
            careless.basic_get("work_queue")
    ((message, error),) = consume(agents, 1)
    assert "cannot be read" in str(error)
    message.reject()
    dead = until(lambda: look(connection).letters)
    assert dead[0].reason == "rejected"
    assert dead[0].body == b"body"
    assert UNREADABLE in dead[0].headers
    with bare_channel(broker_url) as careless, pytest.raises((ValueError, OverflowError, RecursionError)):
        careless.basic_get("dlx_queue")  # the original bytes, not our mended copy


def test_a_routing_key_that_is_not_text_stops_nobody(connection: Connection, broker_url: str) -> None:
    with bare_channel(broker_url) as careless:
        careless.basic_publish(RawProperties("body", b"\x00\x00"), exchange="dlx_exchange", routing_key=b"\xff\xfe")
        with pytest.raises(UnicodeDecodeError):
            careless.basic_get("dlx_queue")
    (letter,) = look(connection).letters
    assert letter.routing_key == "??"


def test_a_bomb_is_handed_over_compressed_and_dead_lettered_as_it_came(
    connection: Connection, agents: kombu.Connection, broker_url: str
) -> None:
    bomb = zlib.compress(bytes(900_000))
    assert len(bomb) < 1000
    with bare_channel(broker_url) as careless:
        message = amqp.Message(bomb, application_headers={"compression": "zlib"}, content_encoding="utf-8")
        careless.basic_publish(message, exchange="work", routing_key="work_queue")
    (came,) = consume(agents, 1)
    assert came.body == bomb
    came.reject()
    dead = until(lambda: look(connection).letters)
    assert dead[0].body == bomb
    assert dead[0].headers["compression"] == "zlib"
