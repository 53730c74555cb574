"""While a broker is called, and says nothing, an agent goes on with all that is none of the broker's business."""

from __future__ import annotations

import socket
import threading
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from amqp import ConnectionForced
from kombu import Connection
from kombu.asynchronous import Hub

from chiffon.agent.connecting import Meanwhile, connected
from chiffon.agent.mailbox import Mailbox
from tests.racing import PATIENCE, until

SOON = 2.0
"""Seconds after which what goes on meanwhile has long begun; a silent broker is given up only after four."""


class Reached(Exception):
    """What goes on meanwhile has its turn."""


def meanwhile(hub: Hub | None = None, mailbox: Mailbox | None = None) -> Meanwhile:
    """What goes on in an agent without anything to do."""
    return Meanwhile(hub, SimpleNamespace(register_with_event_loop=lambda hub: None), mailbox or Mailbox())


class Slow(Connection):
    """A broker that takes its time over the handshake."""

    def __init__(self) -> None:
        super().__init__("amqp://")
        self.answers = threading.Event()
        self.let_go = threading.Event()

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Be there, in the end."""
        assert self.answers.wait(PATIENCE)
        return self

    def collect(self, socket_timeout: float | None = None) -> None:
        """Note that nobody wants it."""
        self.let_go.set()


@pytest.fixture
def silent() -> Iterator[int]:
    """The port of somebody who accepts, and says nothing."""
    with socket.create_server(("127.0.0.1", 0)) as listener:
        yield listener.getsockname()[1]


@pytest.mark.parametrize("brokers", [1, 3])
def test_a_broker_that_says_nothing_holds_up_nothing_else(
    silent: int, brokers: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    def reach(*_: Any) -> None:
        raise Reached

    found = meanwhile()
    monkeypatch.setattr(found, "serve", reach)
    began = time.monotonic()
    with pytest.raises(Reached):
        connected(Connection(";".join([f"amqp://127.0.0.1:{silent}"] * brokers), connect_timeout=4), found)
    assert time.monotonic() - began < SOON


def test_a_broker_that_is_slow_to_answer_is_waited_for_and_the_event_loop_goes_on() -> None:
    hub, mailbox, broker = Hub(), Mailbox(), Slow()
    made: list[str] = []

    def make() -> None:
        made.append("a call")
        broker.answers.set()

    later = threading.Timer(0.5, lambda: mailbox.post(make))
    later.start()
    assert connected(broker, meanwhile(hub, mailbox)) is broker
    assert made == ["a call"]
    assert not broker.let_go.is_set()
    later.join()
    hub.close()


def test_who_is_told_to_end_meanwhile_ends_and_the_connection_is_let_go_of(monkeypatch: pytest.MonkeyPatch) -> None:
    broker, found = Slow(), meanwhile()

    def end(*_: Any) -> None:
        raise SystemExit

    monkeypatch.setattr(found, "serve", end)
    with pytest.raises(SystemExit):
        connected(broker, found)
    assert not broker.let_go.is_set()
    broker.answers.set()
    assert until(broker.let_go.is_set)


def test_what_the_event_loop_raises_meanwhile_is_not_taken_for_the_broker_s_refusal() -> None:
    """The other connection broke, say: a second try would go on beside the first, in another thread."""
    hub, broker = Hub(), Slow()
    hub.propagate_errors = broker.connection_errors

    def fail() -> None:
        raise ConnectionForced("of another connection")

    hub.call_later(0.3, fail)
    with pytest.raises(ConnectionForced):
        connected(broker, meanwhile(hub))
    broker.answers.set()
    assert until(broker.let_go.is_set)
    hub.close()
