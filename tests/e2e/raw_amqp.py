"""A bare AMQP client: py-amqp and nothing of Chiffon, to publish with and to see what the broker really has."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote, urlsplit

import amqp

PERSISTENT = 2


@dataclass(frozen=True)
class Delivery:
    """A message as the broker handed it out. ``headers`` hold AMQP's values as py-amqp reads them."""

    body: bytes
    headers: dict[str, Any]
    properties: dict[str, Any]

    @property
    def deaths(self) -> list[dict[str, Any]]:
        """What RabbitMQ wrote down when it dead-lettered the message, the last death first."""
        found: list[dict[str, Any]] = self.headers.get("x-death", [])
        return found


@dataclass(frozen=True)
class RawAmqp:
    """Speaks AMQP to the broker at ``url``, over a new connection each time."""

    url: str

    def publish(
        self, *bodies: bytes, headers: dict[str, Any] | None = None, exchange: str = "work",
        routing_key: str = "work_queue", **properties: Any,
    ) -> None:  # fmt: skip
        """Publish persistent messages, and return when the broker has confirmed each and returned none."""
        with self.channel() as channel:
            for body in bodies:
                message = amqp.Message(
                    body, application_headers=headers or {}, **{"delivery_mode": PERSISTENT} | properties
                )
                channel.basic_publish(message, exchange, routing_key, mandatory=True)

    def publish_json(self, *values: Any, **options: Any) -> None:
        """Publish values as JSON, as a program in any language would."""
        as_json = {"content_type": "application/json", "content_encoding": "utf-8"}
        self.publish(*(json.dumps(value).encode() for value in values), **as_json | options)

    def ready(self, queue: str) -> int:
        """Return how many messages of ``queue`` wait for a consumer."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).message_count)

    def consumers(self, queue: str) -> int:
        """Return how many consumers ``queue`` has."""
        with self.channel() as channel:
            return int(channel.queue_declare(queue, passive=True).consumer_count)

    def look(self, queue: str) -> list[Delivery]:
        """Return what waits in ``queue``; it all goes back when the connection closes."""
        found = []
        with self.channel() as channel:
            while (message := channel.basic_get(queue)) is not None:
                found.append(_delivery(message))
        return found

    @contextlib.contextmanager
    def tapping(self, routing_key: str = "work_queue") -> Iterator[list[Delivery]]:
        """Overhear, from now until the end, what is published to the exchange `work`: read the list after the block."""
        heard: list[Delivery] = []
        with self.channel() as channel:
            channel.exchange_declare("work", "direct", durable=True, auto_delete=False)
            queue = channel.queue_declare(exclusive=True).queue
            channel.queue_bind(queue, "work", routing_key)
            yield heard
            while (message := channel.basic_get(queue, no_ack=True)) is not None:
                heard.append(_delivery(message))

    @contextlib.contextmanager
    def channel(self) -> Iterator[Any]:
        """Lend a channel in confirm mode, on a connection of its own."""
        parts = urlsplit(self.url)
        with amqp.Connection(
            host=f"{parts.hostname}:{parts.port or 5672}",
            userid=unquote(parts.username or "guest"),
            password=unquote(parts.password or "guest"),
            virtual_host=unquote(parts.path[1:]) or "/",
            confirm_publish=True,
            connect_timeout=10,
            read_timeout=10,
        ) as connection:
            channel = connection.channel()
            channel.auto_decode = False
            yield channel


def _delivery(message: Any) -> Delivery:
    properties = dict(message.properties)
    headers = properties.pop("application_headers", {})
    body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
    return Delivery(body, headers, properties)
