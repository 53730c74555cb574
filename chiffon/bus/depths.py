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
    found = []
    try:
        for name in (*topology.queue_names, DLX_QUEUE):
            ready, consumers = _ask(channel, name)
            unacked = _unacked(management_url, connection.virtual_host, name) if management_url else None
            found.append(Depth(name, ready, consumers, unacked))
    finally:
        with contextlib.suppress(OSError, amqp.AMQPError):
            channel.close()
    return found


def _ask(channel: Any, name: str) -> tuple[int, int]:
    try:
        answer = channel.queue_declare(name, passive=True)
    except amqp.NotFound:  # the broker closed the channel over it; py-amqp has opened it again
        return 0, 0
    return int(answer.message_count), int(answer.consumer_count)


def _unacked(management_url: str, vhost: str, name: str) -> int | None:
    parts = urlsplit(management_url)
    where = f"{parts.scheme}://{parts.netloc}{parts.path.rstrip('/')}"
    try:
        answer = requests.get(f"{where}/api/queues/{quote(vhost, safe='')}/{quote(name, safe='')}", timeout=_TIMEOUT)
        answer.raise_for_status()
        unacked = answer.json().get("messages_unacknowledged")  # not there in a queue's first seconds
        return None if unacked is None else int(unacked)
    except (requests.RequestException, ValueError, TypeError, AttributeError) as error:
        _LOG.warning("the management API does not say what is unacknowledged in %s: %s", name, type(error).__name__)
        return None
