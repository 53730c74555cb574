"""What must be there on the broker: exchanges and queues as data, declared from one place."""

from __future__ import annotations

import contextlib
from dataclasses import dataclass
from typing import Any, Literal

import amqp
from kombu.entity import Exchange, Queue

from chiffon.bus.connect import Version, version_of
from chiffon.domain.errors import BrokerUnavailable
from chiffon.domain.work import DEFAULT_QUEUE

WORK_EXCHANGE = "work"
WORK_QUEUE = DEFAULT_QUEUE
DLX_EXCHANGE = "dlx_exchange"
DLX_QUEUE = "dlx_queue"
MAX_PRIORITY = 5

NEWEST: Version = (4, 3)
"""The newest version whose arguments are known here; what is asked before a broker has said its own."""


class TopologyMismatch(BrokerUnavailable):
    """The broker has a queue or exchange of that name with other arguments, or does not let us declare it."""


@dataclass(frozen=True)
class Topology:
    """``families``: the full names of the work queues; `work_queue` is one with or without its name here."""

    queue_type: Literal["classic", "quorum"] = "classic"
    families: tuple[str, ...] = ()

    @property
    def queue_names(self) -> tuple[str, ...]:
        """Every work queue, `work_queue` first. The routing key of a queue is its name."""
        return (WORK_QUEUE, *(name for name in self.families if name != WORK_QUEUE))

    def work_queues(self, version: Version = NEWEST, *, no_declare: bool = False) -> tuple[Queue, ...]:
        """The work queues as a broker of ``version`` takes them. ``no_declare``: for consumers, after `declare`."""
        arguments = self._work_arguments(version)
        return tuple(
            _queue(name, WORK_EXCHANGE, "direct", arguments, no_declare=no_declare) for name in self.queue_names
        )

    def dead_letter_queue(self, version: Version = NEWEST) -> Queue:
        """`dlx_queue`, which gets whatever is published to `dlx_exchange`."""
        arguments: dict[str, Any] = {}
        if self.queue_type == "quorum":
            arguments["x-queue-type"] = "quorum"
            if version >= (3, 8):
                # Looking counts as a delivery, so the limit is out of reach; without any, 3.10 puts letters that are
                # given back behind all others, and each look would begin where the last one ended.
                arguments["x-delivery-limit"] = 10**9
        return _queue(DLX_QUEUE, DLX_EXCHANGE, "fanout", arguments)

    def declare(self, where: Any) -> None:
        """Declare everything, dead letters first: a reject into a missing exchange silently discards.

        Args:
            where: a connection (kombu's or py-amqp's) or a channel of it; a channel of its own is used, since a refusal
                closes it.

        Raises:
            TopologyMismatch: the broker refuses; names the queue and what to do.
            OSError, amqp.AMQPError: the connection is dead.
        """
        connection = where.connection
        if connection is None:
            raise amqp.RecoverableConnectionError("the connection is closed")
        version = version_of(connection)
        channel = connection.channel()
        try:
            for queue in (self.dead_letter_queue(version), *self.work_queues(version)):
                _declare(queue, channel)
        finally:
            with contextlib.suppress(OSError, amqp.AMQPError):
                channel.close()

    def _work_arguments(self, version: Version) -> dict[str, Any]:
        dead_letters: dict[str, Any] = {"x-dead-letter-exchange": DLX_EXCHANGE}
        if self.queue_type == "classic":
            return dead_letters | {"x-max-priority": MAX_PRIORITY}
        # No `x-max-priority`: quorum queues refuse it (3.10 and 4.3.6 do). From 4.3 they order 32 levels strictly by
        # themselves; 4.0-4.2 know two, 5 and the rest; before, none.
        arguments = dead_letters | {"x-queue-type": "quorum"}
        if version >= (3, 10):  # at-least-once needs an overflow that drops nothing
            arguments |= {"x-dead-letter-strategy": "at-least-once", "x-overflow": "reject-publish"}
        if version >= (4, 0):
            arguments["x-delivery-limit"] = -1  # 20 by default from here on; it is the ledger that counts
        return arguments


def _queue(name: str, exchange: str, kind: str, arguments: dict[str, Any], *, no_declare: bool = False) -> Queue:
    """A durable queue bound to a durable exchange by its own name."""
    source = Exchange(exchange, type=kind, durable=True, no_declare=no_declare)
    return Queue(
        name, exchange=source, routing_key=name, durable=True, queue_arguments=arguments, no_declare=no_declare
    )


def _declare(queue: Queue, channel: Any) -> None:
    try:
        queue(channel).declare()
    except amqp.PreconditionFailed as refusal:
        raise TopologyMismatch(
            f"RabbitMQ has the queue {queue.name!r} or its exchange {queue.exchange.name!r} with other arguments"
            f" ({refusal.reply_text}); set CHIFFON_QUEUE_TYPE to what it was made with, or empty the queue and"
            f" delete it: rabbitmqctl delete_queue {queue.name}"
        ) from refusal
    except (amqp.AccessRefused, amqp.ResourceLocked) as refusal:
        raise TopologyMismatch(
            f"RabbitMQ does not let us declare the queue {queue.name!r} ({refusal.reply_text}); give the user of"
            " CHIFFON_BROKER_URL the configure, write and read permissions, or end the client that holds it exclusively"
        ) from refusal
