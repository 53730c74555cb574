"""A connection to the broker for one question, in the words of the domain."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import amqp

from chiffon.bus.connect import Connection, connect
from chiffon.domain.errors import BrokerUnavailable


@contextmanager
def asking(broker_url: str, *, name: str, patience: float) -> Iterator[Connection]:
    """A connection that is closed afterwards; no answer of the broker takes longer than ``patience`` seconds.

    Raises BrokerUnavailable: it does not answer, or broke off meanwhile.
    """
    with connect(broker_url, name=name, patience=patience) as connection:
        try:
            yield connection
        except (OSError, amqp.AMQPError) as error:
            raise BrokerUnavailable(f"RabbitMQ broke off: {error}") from error
