"""Answers to remote control: they go out beside the events, and the event loop waits for nobody over them.

Celery takes a connection of its pool for each, and waits for the broker's confirm. Nobody listens on that connection in
between: if it is dead and not closed by then, the event loop waits without an end, and the agent with it.
"""

from __future__ import annotations

from typing import Any

from celery.app.control import Control
from kombu.messaging import Producer
from kombu.pidbox import Mailbox, Node


class AnsweringNode(Node):
    """An agent's end of remote control. Used by the event loop only."""

    mailbox: Any
    state: Any

    def reply(self, data: Any, exchange: str, routing_key: str, ticket: str, **_: Any) -> None:
        """Answer, once: the connection of the events has heartbeats, and whoever asks again is answered on the next.

        Whoever asks has declared the exchange.
        """
        dispatcher = self.state.consumer.event_dispatcher
        producer = dispatcher.producer if dispatcher is not None else None
        (producer or Producer(self.channel, auto_declare=False)).publish(
            data,
            exchange=exchange,
            routing_key=routing_key,
            headers={"ticket": ticket, "clock": self.mailbox.clock.forward()},
            serializer=self.mailbox.serializer,
            delivery_mode="transient",
        )


class AnsweringMailbox(Mailbox):
    """Celery's remote control, as the client knows it too."""

    node_cls = AnsweringNode


class LedgerControl(Control):
    """What ``app.control`` is."""

    Mailbox = AnsweringMailbox
