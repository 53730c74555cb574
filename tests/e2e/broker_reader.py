"""What the broker says of what agents have in hand: AMQP itself does not tell."""

from __future__ import annotations

from chiffon.devstack.rabbitmq import PrivateRabbitMQ


def unacknowledged(rabbitmq: PrivateRabbitMQ, url: str) -> int:
    """How many messages of `work_queue`, in the virtual host of ``url``, agents have in hand."""
    said = rabbitmq.ctl(
        "list_queues", "--no-table-headers", "-p", url.rpartition("/")[2], "name", "messages_unacknowledged"
    )
    return next(int(line.split()[1]) for line in said.splitlines() if line.startswith("work_queue"))
