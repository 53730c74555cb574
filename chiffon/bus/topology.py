"""What must be there on the broker: exchanges and queues as data, declared from one place."""

from __future__ import annotations

import contextlib
import functools
import re
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal

import amqp
import structlog
from kombu.entity import Exchange, Queue

from chiffon.bus.connect import Version, version_of
from chiffon.domain.errors import BrokerUnavailable
from chiffon.domain.work import DEFAULT_QUEUE

log = structlog.get_logger(__name__)

WORK_EXCHANGE = "work"
WORK_QUEUE = DEFAULT_QUEUE
DLX_EXCHANGE = "dlx_exchange"
DLX_QUEUE = "dlx_queue"
MAX_PRIORITY = 5

NEWEST: Version = (4, 3)
"""The newest version whose arguments are known here; what is asked before a broker has said its own."""

_LESS_UNTIL: tuple[Version, ...] = ((3, 13), (3, 9))
"""The last versions that are asked for less in a quorum queue for work than those after them, the newest first."""


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
            where: a connection (kombu's or py-amqp's) or a channel of it; channels of its own are used, since a refusal
                closes one.

        Raises:
            TopologyMismatch: the broker refuses; names the queue and what to do.
            OSError, amqp.AMQPError: the connection is dead.
        """
        connection = where.connection
        if connection is None:
            raise amqp.RecoverableConnectionError("the connection is closed")
        version = version_of(connection)
        _declare([self.dead_letter_queue(version)], connection)
        older = [last for last in _LESS_UNTIL if last < version]
        for forms in zip(*map(self.work_queues, (version, *older)), strict=True):
            _declare(forms, connection)

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


def _declare(forms: Sequence[Any], connection: Any) -> None:
    """Declare a queue. ``forms``: kombu's, as this broker can have it, and as older ones did, the newest first.

    An upgrade leaves a queue its arguments, and a broker compares all of them: one that asks for what an older broker
    did not know is refused, and is then declared as that one made it.
    """
    queue, *older = forms
    channel = connection.channel()
    try:
        queue(channel).declare()
    except amqp.PreconditionFailed as refusal:
        refused = _refused_argument(refusal)
        without = [form for form in older if refused not in form.queue_arguments]
        if refused not in queue.queue_arguments or not without:
            raise _mismatch(queue, refusal) from refusal
        _declare(without, connection)
        _tell_of_older(queue.name, str(refused))
    except (amqp.AccessRefused, amqp.ResourceLocked) as refusal:
        raise TopologyMismatch(
            f"RabbitMQ does not let us declare the queue {queue.name!r} ({refusal.reply_text}); give the user of"
            " CHIFFON_BROKER_URL the configure, write and read permissions, or end the client that holds it exclusively"
        ) from refusal
    finally:
        with contextlib.suppress(OSError, amqp.AMQPError):
            channel.close()


def _refused_argument(refusal: amqp.PreconditionFailed) -> str | None:
    """Which argument differs from what is there; None if it says nothing of one."""
    found = re.search(r"inequivalent arg '([^']+)'", str(refusal.reply_text))
    return found[1] if found else None


def _mismatch(queue: Queue, refusal: amqp.PreconditionFailed) -> TopologyMismatch:
    return TopologyMismatch(
        f"RabbitMQ has the queue {queue.name!r} or its exchange {queue.exchange.name!r} with other arguments"
        f" ({refusal.reply_text}); set CHIFFON_QUEUE_TYPE to what it was made with, or, where another program or"
        " a newer RabbitMQ has made it (what an older one made is used as it is), empty the queue and delete it:"
        f" rabbitmqctl delete_queue {queue.name}"
    )


@functools.cache  # once for each queue: it is declared at every connect
def _tell_of_older(queue: str, lacks: str) -> None:
    log.warning(
        "queue_of_an_older_broker",
        queue=queue,
        lacks=lacks,
        reason=f"it was made by an older RabbitMQ, without {lacks}, and is used as it is; to have it as this one can,"
        f" let agents empty it, stop them, and delete it: rabbitmqctl delete_queue {queue}",
    )
