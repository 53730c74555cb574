"""Celery's way to the broker, with our topology, and with a run's continuations caught."""

from __future__ import annotations

import json
import math
from ssl import CERT_NONE
from typing import Any

from celery.app.amqp import AMQP
from kombu.connection import Connection
from kombu.utils.functional import maybe_list
from kombu.utils.json import dumps

from chiffon.agent.run import Draft, Run, current
from chiffon.bus.frames import frame_handler
from chiffon.bus.inflate import message_factory
from chiffon.bus.topology import Topology
from chiffon.logs import redacted_repr


class CarefulConnection(Connection):
    """kombu's connection, which reads whatever a message carries, and knows over TLS whom it speaks to.

    py-amqp is told no name by kombu, and then takes any certificate that somebody vouches for. Both are options of the
    moment: `celery inspect stats` shows what stays with the connection, as JSON.

    ``place``: of the broker in use in the list, 0 for the first.
    """

    place = 0

    def switch(self, conn_str: str) -> None:
        """Use another broker of the list from the next connect on."""
        super().switch(conn_str)  # type: ignore[no-untyped-call]
        self.place = self.alt.index(conn_str)

    def _establish_connection(self) -> Any:
        transport = self.transport  # that of amqps:// asks for TLS when it is made
        given = self.ssl, self.transport_options
        self.ssl = _named(self.ssl, self.hostname)
        self.transport_options = {**(self.transport_options or {}), "frame_handler": frame_handler}
        try:
            return transport.establish_connection()
        finally:
            self.ssl, self.transport_options = given  # the next broker of the list has another name; so may a clone


class LedgerAMQP(AMQP):
    """Publishes as Celery does, but for what follows from a run: that becomes rows, in its settling commit."""

    Connection = CarefulConnection

    def TaskConsumer(self, channel: Any, queues: Any = None, accept: Any = None, **options: Any) -> Any:  # noqa: N802
        """A consumer of the work queues, after the whole topology was declared on its connection.

        A stock consumer declares only its own queues, and a reject into a missing exchange silently discards.
        """
        settings = self.app.settings
        names = tuple(queue.name for queue in self.app.conf.task_queues)
        Topology(settings.queue_type, names).declare(channel)
        consumer = super().TaskConsumer(channel, queues, accept, auto_declare=False, **options)
        # kombu decompresses a message before anybody has looked at its size.
        consumer.channel.message_to_python = message_factory(consumer.channel, settings.max_message)
        return consumer

    def as_task_v2(
        self, task_id: str, name: str, args: Any = None, kwargs: Any = None, *more: Any, **options: Any
    ) -> Any:
        """As Celery's, without secrets in what it shows of the arguments: events and Flower repeat that."""
        for shown, value in (("argsrepr", args), ("kwargsrepr", kwargs)):
            if options.get(shown) is None:
                options[shown] = redacted_repr(value, self.app.settings)
        return super().as_task_v2(task_id, name, args, kwargs, *more, **options)

    @property
    def send_task_message(self) -> Any:
        """As Celery's, for whoever is in no run or in the middle of one."""
        publish = self._publish

        def send(producer: Any, name: str, message: Any, **options: Any) -> Any:
            run = current()
            if run is not None and (run.ending or message.headers["id"] == run.task_id):
                return _keep(run, message, options, self.app.settings.max_message)
            return publish(producer, name, message, **options)

        return send

    @property
    def _publish(self) -> Any:
        sender = self.__dict__.get("_sender")
        if sender is None:
            sender = self.__dict__["_sender"] = self._create_task_sender()
        return sender


def _keep(run: Run, message: Any, options: dict[str, Any], limit: int) -> None:
    """Put a message into the run's report; one with the run's own id is its retry, or what replaces it.

    ``limit``: bytes of what follows. What is run again is as large as it was, which may be more.
    """
    if message.headers["id"] == run.task_id:
        run.report.anew = _draft(message, options)
    else:
        run.report.drafts.append(_draft(message, options, limit))


def _draft(message: Any, options: dict[str, Any], limit: float = math.inf) -> Draft:
    # As JSON has it: kombu's marks of dates and the like stay, and are read where the work is run.
    text = dumps(message.body)
    arguments, parameters, embed = json.loads(text)
    refused = None
    if len(text) > limit:  # a row may be larger, but not without an end: the settlement would be refused with it
        refused = f"its body would have {len(text)} bytes, more than CHIFFON_MAX_MESSAGE ({limit})"
        arguments = parameters = None
    return Draft(
        headers=json.loads(dumps(message.headers | (options.get("headers") or {}))),
        arguments=maybe_list(arguments) or [],
        parameters=parameters or {},
        embed={name: value for name, value in (embed or {}).items() if value},
        priority=options.get("priority"),
        routing_key=_routing_key(options),
        refused=refused,
    )


def _routing_key(options: dict[str, Any]) -> str | None:
    if (key := options.get("routing_key")) is not None:
        return str(key)
    queue = options.get("queue")
    return getattr(queue, "routing_key", None) or (queue if isinstance(queue, str) else None)


def _named(ssl: Any, hostname: str | None) -> Any:
    """kombu's ``ssl`` with a name for the certificate, unless it has one or asks for no certificate at all."""
    if not ssl:
        return ssl
    options = dict(ssl) if isinstance(ssl, dict) else {}
    if options.get("cert_reqs") == CERT_NONE or options.get("server_hostname"):
        return options
    return options | {"server_hostname": hostname}
