"""The one hand that publishes: connected lazily, bounded in time, honest about what the broker took."""

from __future__ import annotations

import os
import threading
import time
from collections.abc import Sequence
from contextlib import suppress
from types import TracebackType
from typing import Self

import amqp
import structlog

from chiffon.bus.confirms import BLOCKED, Confirms, Receipt, nothing_taken, publish_apart
from chiffon.bus.connect import Connection, connect
from chiffon.bus.failback import Failback
from chiffon.bus.letters import Letter
from chiffon.bus.topology import Topology
from chiffon.domain.errors import BrokerUnavailable

log = structlog.get_logger(__name__)


class Publisher:
    """Publishes letters and says which ones the broker has taken.

    Not thread-safe by design: it belongs to the thread that first publishes or tends, in the process that made it, and
    says so to any other. The topology is declared on every connect, before first use. ``patience``: seconds, > 0, that
    each of the broker's answers may take while connecting. Of a list of brokers it uses the first that answers: led to
    a later one, it returns, within some ten seconds, to one before that.
    """

    def __init__(self, broker_url: str, topology: Topology, *, name: str = "chiffon", patience: float = 5.0) -> None:
        self._broker_url = broker_url
        self._topology = topology
        self._name = name
        self._patience = patience
        self._owner: tuple[int, int] | None = None
        self._connection: Connection | None = None
        self._confirms: Confirms | None = None
        self._failback = Failback(broker_url, name=f"{name} failback")

    @property
    def connected(self) -> bool:
        """Whether there is a connection, as far as was seen last."""
        return self._connection is not None

    @property
    def blocked(self) -> bool:
        """Whether the broker has said that it takes no messages (a memory or disk alarm), as far as was seen last."""
        return self._connection is not None and self._connection.blocked

    def publish(self, letters: Sequence[Letter], *, within: float = 10.0) -> Receipt:
        """Publish ``letters``, ``mandatory`` and persistent as they say, and wait ``within`` seconds for the confirms.

        A broker that blocks, hangs or dies meanwhile leaves letters unconfirmed. The next call connects again.

        Raises:
            BrokerUnavailable: no broker answers; nothing was published. TopologyMismatch is one.
            ValueError: two letters with one ``message_id``: a return could not be matched.
            RuntimeError: another thread or process owns this publisher.
        """
        self._check_owner()
        if len({letter.message.message_id for letter in letters}) < len(letters):
            raise ValueError("two letters of one publish have the same message_id")
        if not letters:
            return Receipt()
        self._confirming()
        deadline = time.monotonic() + within
        return publish_apart(lambda batch: self._attempt(batch, deadline), letters)

    def open(self) -> None:
        """Connect and declare, if that is not done. Raises BrokerUnavailable."""
        self._check_owner()
        self._confirming()

    def tend(self) -> None:
        """Read what has arrived and prove that we live. Call it about once a second while there is nothing to publish.

        A connection found dead is dropped; the next `publish` connects again. One to another broker than the first of
        the list is given up when an earlier one answers.
        """
        self._check_owner()
        if self._connection is None:
            return
        try:
            self._connection.tend()
        except (OSError, amqp.AMQPError):
            self._drop()
        else:
            self._return_to_earlier(self._connection)

    def close(self) -> None:
        """Close the connection, if there is one. It may be used again."""
        connection, self._connection, self._confirms, self._owner = self._connection, None, None, None
        if connection is not None:
            connection.close()

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.close()

    def _attempt(self, letters: Sequence[Letter], deadline: float) -> Receipt:
        try:
            confirms = self._confirming()
        except BrokerUnavailable as error:  # while finding one bad letter by halves: others were published already
            return nothing_taken(letters, str(error))
        if self.blocked:  # writing more would only fill the socket, and be published when the alarm is over
            return nothing_taken(letters, BLOCKED)
        receipt = confirms.publish(letters, deadline)
        if not receipt.usable:
            self._drop()
        return receipt

    def _confirming(self) -> Confirms:
        """The channel to publish on: the one there is, if it still lives. Raises BrokerUnavailable."""
        self.tend()
        return self._confirms or self._connect()

    def _return_to_earlier(self, connection: Connection) -> None:
        """Go to a broker that stands before this one in the list, if one answers again and can be used."""
        if self._failback.is_due(connection.place):
            with suppress(BrokerUnavailable):  # it may have other queues: then this one is kept
                self._connect()
                log.info("broker_failback", reason="a broker that stands earlier in CHIFFON_BROKER_URL answers again")
                connection.close()

    def _connect(self) -> Confirms:
        connection = connect(self._broker_url, name=self._name, patience=self._patience)
        try:
            self._topology.declare(connection)
            confirms = Confirms(connection)
        except (OSError, amqp.AMQPError) as error:
            connection.drop()
            raise BrokerUnavailable(f"RabbitMQ broke off while the queues were declared ({error})") from error
        except BrokerUnavailable:
            connection.close()
            raise
        self._connection, self._confirms = connection, confirms
        return confirms

    def _drop(self) -> None:
        connection, self._connection, self._confirms = self._connection, None, None
        if connection is not None:
            connection.drop()

    def _check_owner(self) -> None:
        here = (os.getpid(), threading.get_ident())
        if self._owner is None:
            self._owner = here
        elif self._owner != here:
            raise RuntimeError("a Publisher belongs to one thread of one process; make another one here")
