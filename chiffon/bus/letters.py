"""What is published: a doorbell in Celery's protocol 2, a dead letter, or anything else, as values."""

from __future__ import annotations

import functools
import json
import os
import reprlib
import socket
from collections.abc import Iterable, Mapping
from datetime import UTC, datetime
from types import MappingProxyType
from typing import Any, NamedTuple

from chiffon.bus.topology import DLX_EXCHANGE, WORK_EXCHANGE
from chiffon.domain.ids import derived_id
from chiffon.domain.redaction import redact

DOORBELL = "chiffon_doorbell"
"""The header that says: the ledger has this task. Without its row it is dead-lettered, never inserted."""

REASON, DIED_AT, QUEUE = "chiffon_reason", "chiffon_died_at", "chiffon_queue"
"""The headers of a dead letter that was published, not rejected: why, when (UTC), and which queue its task came by."""

LARGEST_BODY = 65_536
"""Bytes of a doorbell's body, at most. A larger one is left empty: nobody reads it, for what runs is the row, and a row
may hold more than an agent, or the broker, takes for a message.
"""

PERSISTENT = 2
_AS_JSON = json.JSONEncoder(ensure_ascii=False)
_NOTHING_EMBEDDED = {"callbacks": None, "errbacks": None, "chain": None, "chord": None}
_EMPTY_BODY = _AS_JSON.encode([[], {}, _NOTHING_EMBEDDED]).encode()
_SHORT = 255  # bytes of an AMQP short string: a task id of 255 characters may be longer
_FEW = 64  # members, characters and bits that are soon shown
_REPR_SIZE = 1024  # characters of what is only shown, as Celery's own `argsrepr_maxsize`


def is_short(text: str) -> bool:
    """Whether AMQP can say it as a name: of a queue, a header, or a field of its own."""
    return len(text.encode(errors="surrogatepass")) <= _SHORT


class Message(NamedTuple):
    """An AMQP message. ``properties``: by their AMQP names, without ``message_id`` and headers."""

    message_id: str
    body: bytes
    headers: Mapping[str, Any] = MappingProxyType({})
    properties: Mapping[str, Any] = MappingProxyType({})


class Letter(NamedTuple):
    """A message and where to publish it."""

    exchange: str
    routing_key: str
    message: Message


class Doorbell(NamedTuple):
    """One ring of a task of the ledger.

    ``embed`` is the third item of a protocol 2 body (callbacks, errbacks, chain, chord). ``headers``: further ones,
    such as ``group_index`` or ``timelimit``; what names this task and this ring stays as it is here. Where they come
    in they are held to what fits a frame.
    """

    task_id: str
    ring_no: int
    work_type: str
    queue: str
    priority: int
    parameters: Mapping[str, Any]
    arguments: list[Any]
    request_id: str
    trace_id: str
    root_id: str | None = None
    parent_id: str | None = None
    retries: int = 0
    embed: Mapping[str, Any] | None = None
    group_id: str | None = None
    headers: Mapping[str, Any] = MappingProxyType({})

    @property
    def message_id(self) -> str:
        """One a ring: a return is matched by it, and a ring published twice has it twice."""
        return derived_id("ring", self.task_id, str(self.ring_no))

    def letter(self, secret: Iterable[str] = ()) -> Letter:
        """The letter that rings. ``secret``: parameters that nobody is shown (`Settings.secret_parameters`)."""
        headers = self._celery_headers(tuple(secret)) | dict(self.headers) | self._own_headers()
        return Letter(WORK_EXCHANGE, self.queue, Message(self.message_id, self._body(), headers, self._properties()))

    def _body(self) -> bytes:
        embed = _NOTHING_EMBEDDED | dict(self.embed or {})
        body = _AS_JSON.encode([self.arguments, dict(self.parameters), embed]).encode()
        return body if len(body) <= LARGEST_BODY else _EMPTY_BODY

    def _properties(self) -> dict[str, Any]:
        properties = {
            "content_type": "application/json",
            "content_encoding": "utf-8",
            "delivery_mode": PERSISTENT,
            "priority": self.priority,
            "reply_to": "",
        }
        if is_short(self.task_id):
            properties["correlation_id"] = self.task_id
        return properties

    def _celery_headers(self, secret: tuple[str, ...]) -> dict[str, Any]:
        """Celery's ``as_task_v2`` (`celery/app/amqp.py`), without what is None: each header costs whoever reads it."""
        return {
            "lang": "py",
            "group": self.group_id,
            "retries": self.retries,
            "root_id": self.root_id or self.task_id,
            "parent_id": self.parent_id,
            "argsrepr": _shown(self.arguments, secret),
            "kwargsrepr": _shown(self.parameters, secret),
            "origin": _origin(),
        }

    def _own_headers(self) -> dict[str, Any]:
        return {
            "task": self.work_type,
            "id": self.task_id,
            "request_id": self.request_id,
            "trace_id": self.trace_id,
            "ring_no": self.ring_no,
            DOORBELL: 1,
        }


def dead_letter_for(doorbell: Doorbell, reason: str, *, died_at: datetime, secret: Iterable[str] = ()) -> Letter:
    """The letter that pays a task's debt to `dlx_queue` when nobody holds its message.

    ``reason``: its beginning is said, for headers must fit a frame; the row has it all. ``died_at``: aware; AMQP keeps
    seconds. Paid twice, it has the same ``message_id`` twice.
    """
    rung = doorbell.letter(secret).message
    headers = dict(rung.headers) | {
        REASON: reason[:_REPR_SIZE],
        DIED_AT: died_at.astimezone(UTC),
        QUEUE: doorbell.queue,
    }
    message_id = derived_id("dead", doorbell.task_id, str(doorbell.ring_no))
    return Letter(DLX_EXCHANGE, doorbell.queue, Message(message_id, rung.body, headers, rung.properties))


def _shown(value: Any, secret: tuple[str, ...]) -> str:
    """``value`` as logs, events and Flower show it."""
    if not value:
        return repr(value)
    hidden = redact(dict(value) if isinstance(value, Mapping) else value, secret)
    text = repr(hidden) if _is_soon_shown(hidden) else _SHORTENER.repr(hidden)
    return text if len(text) <= _REPR_SIZE else text[: _REPR_SIZE - 3] + "..."


def _is_soon_shown(value: Any) -> bool:
    """Whether Python's own repr, which is much faster than a careful one, cannot become long."""
    members = [*value.keys(), *value.values()] if isinstance(value, dict) else value
    return len(members) <= _FEW and all(
        len(member) <= _FEW
        if isinstance(member, str)
        else isinstance(member, bool | float | None) or (isinstance(member, int) and member.bit_length() <= _FEW)
        for member in members
    )


@functools.cache
def _origin() -> str:
    return f"chiffon{os.getpid()}@{socket.gethostname()}"


def _shortener() -> reprlib.Repr:
    shortener = reprlib.Repr()
    shortener.maxstring = shortener.maxother = shortener.maxlong = 200
    shortener.maxdict = shortener.maxlist = 50
    return shortener


_SHORTENER = _shortener()
