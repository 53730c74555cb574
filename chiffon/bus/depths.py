"""How many messages wait, and how many consumers there are for them."""

from __future__ import annotations

import contextlib
import logging
from dataclasses import dataclass
from typing import Any
from urllib.parse import quote, urlsplit

import amqp
import requests

from chiffon.bus.connect import Connection
from chiffon.bus.topology import DLX_QUEUE, Topology

_LOG = logging.getLogger(__name__)
_TIMEOUT = 3.0  # seconds; the figure is a courtesy


@dataclass(frozen=True)
class Depth:
    """One queue. ``unacked``: delivered and not yet acknowledged; None without the management API."""

    queue: str
    ready: int
    consumers: int
    unacked: int | None = None


def depths(connection: Connection, topology: Topology, management_url: str = "") -> list[Depth]:
    """The depth of every work queue and of `dlx_queue`. A queue that is not there (a wiped broker) is empty.

    Asking AMQP needs no plugin, but it does not know ``unacked``; that comes from ``management_url`` where one is set,
    some seconds old, and is None when the management API does not answer.

    Raises:
        OSError, amqp.AMQPError: the connection is dead.
    """
    channel = connection.channel()
    try:
        found = {name: _ask(channel, name) for name in (*topology.queue_names, DLX_QUEUE)}
    finally:
        with contextlib.suppress(OSError, amqp.AMQPError):
            channel.close()
    unacked = _unacked(management_url, connection.virtual_host) if management_url else {}
    return [Depth(name, ready, consumers, unacked.get(name)) for name, (ready, consumers) in found.items()]


def _ask(channel: Any, name: str) -> tuple[int, int]:
    try:
        answer = channel.queue_declare(name, passive=True)
    except amqp.NotFound:  # the broker closed the channel over it; py-amqp has opened it again
        return 0, 0
    return int(answer.message_count), int(answer.consumer_count)


def _unacked(management_url: str, vhost: str) -> dict[str, int]:
    """How many messages of each queue are unacknowledged; a queue of the last seconds has no figure yet."""
    parts = urlsplit(management_url)
    address = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}/api/queues/{quote(vhost, safe='')}"
    try:
        answer = requests.get(address, params={"columns": "name,messages_unacknowledged"}, timeout=_TIMEOUT)
        answer.raise_for_status()
        return {
            queue["name"]: int(queue["messages_unacknowledged"])
            for queue in answer.json()
            if "messages_unacknowledged" in queue
        }
    except (requests.RequestException, ValueError, LookupError, TypeError) as error:
        _LOG.warning("the management API does not say what is unacknowledged: %s", type(error).__name__)
        return {}
