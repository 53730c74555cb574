"""What is set on the event loop while the broker is away outlives the connection that comes next."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.worker.consumer.consumer import Consumer
from celery.worker.loops import _timer_entries
from kombu import Connection
from kombu.asynchronous import Hub

from chiffon.agent.consumer import LedgerConsumer
from chiffon.agent.mailbox import Mailbox


class Broker(Connection):
    """A broker that is away at the first look, and has something done by then."""

    def __init__(self, when_away: Any) -> None:
        super().__init__("amqp://")
        self._when_away = when_away

    def ensure_connection(self, *args: Any, **options: Any) -> Any:
        """Be there, the second time."""
        if self._when_away is not None:
            self._when_away()
            self._when_away = None
            raise ConnectionRefusedError("away")
        return self


def test_a_time_limit_set_while_the_broker_is_away_outlives_the_next_loss_of_the_connection() -> None:
    hub, mailbox = Hub(), Mailbox()
    limits: list[Any] = []
    brought: list[Any] = []
    pool = SimpleNamespace(
        register_with_event_loop=lambda hub: brought.append(hub.call_repeatedly(5, lambda: None)),
    )
    consumer: Any = SimpleNamespace(hub=hub, pool=pool, _mailbox=mailbox, first_connection_attempt=True)
    consumer.timer_entries_before_start = _timer_entries(hub.timer)  # as `Consumer.start` has it
    consumer.timer_entries_registered = None

    def accept() -> None:
        mailbox.post(lambda: limits.append(hub.call_later(60, lambda: None)))

    LedgerConsumer.ensure_connected(consumer, Broker(accept))
    heartbeat = hub.call_later(60, lambda: None)
    Consumer._cancel_connection_timer_entries(consumer)

    assert [limit.canceled for limit in limits] == [False]
    assert [timer.canceled for timer in [*brought, heartbeat]] == [True, True]


def test_it_outlives_an_error_of_the_event_loop_in_the_outage_too() -> None:
    hub, mailbox = Hub(), Mailbox()
    hub.propagate_errors = (ConnectionError,)  # as the last connection has left it
    limits: list[Any] = []
    pool = SimpleNamespace(register_with_event_loop=lambda hub: None)
    consumer: Any = SimpleNamespace(hub=hub, pool=pool, _mailbox=mailbox, first_connection_attempt=True)
    consumer.timer_entries_before_start = _timer_entries(hub.timer)
    consumer.timer_entries_registered = None

    def accept() -> None:
        def fail() -> None:
            raise ConnectionError("closed")

        limits.append(hub.call_later(60, lambda: None))
        hub.call_later(0.05, fail)

    with pytest.raises(ConnectionError):
        LedgerConsumer.ensure_connected(consumer, Broker(lambda: mailbox.post(accept)))
    Consumer._cancel_connection_timer_entries(consumer)

    assert [limit.canceled for limit in limits] == [False]
