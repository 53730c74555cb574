"""Deliveries as values: what kombu hands to a consumer, without a broker."""

from __future__ import annotations

import json
from dataclasses import dataclass, field
from typing import Any

TRACE = "4bf92f3577b34da6a3ce929d0e0e4736"


@dataclass(frozen=True)
class Delivery:
    """What is looked at of a kombu message."""

    body: bytes = b""
    headers: Any = field(default_factory=dict)
    properties: dict[str, Any] = field(default_factory=dict)
    content_type: Any = "application/json"
    content_encoding: Any = "utf-8"
    delivery_info: dict[str, Any] = field(default_factory=lambda: {"routing_key": "work_queue"})


def encoded(value: object) -> bytes:
    """JSON as any client would send it."""
    return json.dumps(value).encode()


def enveloped(*, properties: dict[str, Any] | None = None, **members: Any) -> Delivery:
    """A plain message with an envelope that asks for an echo; None leaves a member out."""
    said = {
        "protocol_version": "1.0",
        "type": "work_request",
        "payload": {"work_type": "echo", "parameters": {"input": "hello"}},
    } | members
    return Delivery(
        encoded({name: value for name, value in said.items() if value is not None}), properties=properties or {}
    )


def native(
    arguments: Any = (), parameters: Any = None, embed: Any = None, *, priority: Any = 0, **headers: Any
) -> Delivery:
    """A message of Celery's protocol 2 that asks for an echo."""
    said = {"id": "task-1", "task": "echo", "lang": "py"} | headers
    parameters = {"input": "hello"} if parameters is None else parameters
    return Delivery(
        encoded([arguments, parameters, embed]),
        headers=said,
        properties={"priority": priority, "correlation_id": "task-1"},
    )
