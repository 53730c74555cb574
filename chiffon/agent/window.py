"""How many messages the broker may hand out before it hears of the first of them: AMQP's prefetch, while it goes."""

from __future__ import annotations

from typing import Any

from amqp import spec

MOST = 512
"""Messages in hand, at most."""


class Window:
    """The prefetch of Celery's ``consumer``. Used by the event loop only; it never waits for the broker."""

    def __init__(self, consumer: Any, least: int) -> None:
        self._consumer = consumer
        self._least = least
        self.size = least

    def opened(self) -> None:
        """A connection stands, on which Celery has asked for the least."""
        self.size = self._least

    def fit(self, wanted: int) -> bool:
        """Have about so many, if that makes a difference; whether it was changed."""
        wanted = max(self._least, min(MOST, wanted))
        if wanted == self.size or self.size < wanted < self.size * 1.5:
            return False
        self._set(wanted)
        self.size = wanted
        return True

    def _set(self, size: int) -> None:
        consumer = self._consumer
        channel = consumer.task_consumer.channel
        if consumer.qos_global:
            _ask(channel, size, of_channel=True)
        else:
            # A limit for each consumer counts for those that come after it: quorum queues, and RabbitMQ from 4.0.
            tasks = consumer.task_consumer
            queues = [queue for queue in tasks.queues if queue.name in tasks._active_tags]
            no_ack = dict(tasks._active_queue_no_ack)
            for queue in queues:
                channel.basic_cancel(tasks._active_tags.pop(queue.name), nowait=True)
            _ask(channel, size, of_channel=False)
            for queue in queues:
                tasks._basic_consume(queue, no_ack=no_ack[queue.name], nowait=True)
        consumer.qos.value = consumer.qos.prev = size  # what Celery shows, and else would set again


def _ask(channel: Any, size: int, *, of_channel: bool) -> None:
    # `basic_qos` would wait for the answer, and a broker that hangs would hang the event loop.
    channel._pending[spec.Basic.QosOk] = lambda *_: None
    channel.send_method(spec.Basic.Qos, "lBb", (0, size, of_channel))
