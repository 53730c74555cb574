"""One dead letter: what it was, where it died, and why."""

from __future__ import annotations

import hashlib
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from typing import Any

from chiffon.bus.frames import UNREADABLE
from chiffon.bus.letters import DIED_AT, DOORBELL, PERSISTENT, QUEUE, REASON, Letter, Message
from chiffon.bus.topology import WORK_EXCHANGE, WORK_QUEUE
from chiffon.domain.ids import derived_id

BROKERS_OWN = ("x-death", "x-first-death-", "x-last-death-", "x-delivery-count", "x-acquired-count", "x-opt-")
"""Headers that the broker writes, and counts up each time somebody looks; a replay leaves them behind."""

_NOT_AGAIN = frozenset({"message_id", "user_id", "cluster_id", "expiration", "delivery_mode", "application_headers"})
"""Properties that a replay leaves behind: another user's id closes the channel, an expiry would end it at once."""


@dataclass(frozen=True)
class DeadLetter:
    """A letter in `dlx_queue`.

    ``id``: the same at every look. A doorbell's is its task's, however often it lies here (``copies``); any other is
    derived from its bytes. ``queue``: where it died, and ``reason`` why (RabbitMQ's ``rejected``, ``expired``,
    ``maxlen``, ``delivery_limit``, or the ringer's own words); both None for one that was published here by hand.
    Times are UTC, to the second. ``body``: as it was published, compressed if it was. ``doorbell``: whether it is the
    ledger's task ``task_id``; that of any other letter is only what it says of itself.
    """

    id: str
    queue: str | None
    reason: str | None
    task_id: str | None
    doorbell: bool
    copies: int
    headers: Mapping[str, Any]
    properties: Mapping[str, Any]
    body: bytes
    exchange: str
    routing_key: str
    first_death_at: datetime | None
    died_at: datetime | None

    def again(self, body: bytes | None = None) -> Letter:
        """The letter that gives it another try on the queue where it died; ``body``: a mended one (JSON, uncompressed).

        Its ``message_id`` is kept, or becomes ``id``: a try that is published twice is known by it.
        """
        headers = {k: v for k, v in self.headers.items() if not _left_behind(k)}
        properties = {k: v for k, v in self.properties.items() if k not in _NOT_AGAIN}
        if str(properties.get("reply_to", "")).startswith("amq.rabbitmq.reply-to"):
            del properties["reply_to"]  # its direct reply queue is another connection's, and closes our channel
        properties["delivery_mode"] = PERSISTENT
        if body is not None:
            headers.pop("compression", None)
            properties |= {"content_type": "application/json", "content_encoding": "utf-8"}
        message_id = self.properties.get("message_id") or self.id
        content = self.body if body is None else body
        return Letter(WORK_EXCHANGE, self.queue or WORK_QUEUE, Message(str(message_id), content, headers, properties))


class Coroner:
    """Names letters in the order in which they lie in `dlx_queue`, so that identical ones have an id each."""

    def __init__(self) -> None:
        self._seen: dict[str, int] = {}

    def examine(self, raw: Any) -> DeadLetter:
        """The letter that py-amqp's ``basic_get`` brought, read without ever raising."""
        properties = {k: v for k, v in raw.properties.items() if k != "application_headers"}
        headers = raw.properties.get("application_headers") or {}
        body = raw.body if isinstance(raw.body, bytes) else str(raw.body).encode(errors="surrogatepass")
        task_id = headers.get("id") if isinstance(headers.get("id"), str) else None
        doorbell = DOORBELL in headers and task_id is not None
        deaths = _deaths(headers)
        times = [at for death in deaths if (at := _aware(death.get("time")))]
        times += [at for at in (_aware(headers.get(DIED_AT)),) if at]
        last = deaths[0] if deaths else {}
        return DeadLetter(
            id=derived_id("task", task_id) if doorbell and task_id else self._name(headers, properties, body),
            queue=_text(headers.get(QUEUE)) or _text(last.get("queue")),
            reason=_text(headers.get(REASON)) or _text(last.get("reason")),
            task_id=task_id,
            doorbell=doorbell,
            copies=1,
            headers=headers,
            properties=properties,
            body=body,
            exchange=raw.delivery_info["exchange"],
            routing_key=raw.delivery_info["routing_key"],
            first_death_at=min(times, default=None),
            died_at=max(times, default=None),
        )

    def _name(self, headers: Mapping[str, Any], properties: Mapping[str, Any], body: bytes) -> str:
        """An id from all that the sender wrote; the message's own id alone may be every message's."""
        said = sorted((str(k), _repr(v)) for k, v in headers.items() if not _left_behind(k))
        digest = hashlib.sha256(
            repr((said, sorted((k, repr(v)) for k, v in properties.items()))).encode("utf-8", "replace")
        )
        digest.update(body)
        content = digest.hexdigest()
        occurrence = self._seen[content] = self._seen.get(content, -1) + 1
        return derived_id("letter", str(properties.get("message_id") or ""), content, str(occurrence))


def legible(value: Any, depth: int = 20) -> Any:
    """``value``, a header or property of any AMQP type, as JSON can show it."""
    match value:
        case None | bool() | int() | str():
            return value
        case float():
            return value if math.isfinite(value) else str(value)
        case bytes():
            return value.decode(errors="backslashreplace")
        case datetime():
            return value.replace(tzinfo=UTC).isoformat()
        case dict() | list() if depth == 0:
            return "..."
        case dict():
            return {str(legible(k)): legible(v, depth - 1) for k, v in value.items()}
        case list():
            return [legible(item, depth - 1) for item in value]
        case _:
            return str(value)


def _repr(value: object) -> str:
    try:
        return repr(value)
    except RecursionError:
        return "deep"


def _left_behind(header: object) -> bool:
    return str(header).startswith(BROKERS_OWN) or header in {"CC", "BCC", UNREADABLE, REASON, DIED_AT, QUEUE}


def _deaths(headers: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    """The broker's account, the latest death first. Anybody may have written this header: what is odd is left out."""
    account = headers.get("x-death")
    return [death for death in account if isinstance(death, dict)] if isinstance(account, list) else []


def _aware(time: object) -> datetime | None:
    """AMQP's timestamps are UTC, and py-amqp does not say so."""
    return time.replace(tzinfo=UTC) if isinstance(time, datetime) else None


def _text(value: object) -> str | None:
    return value if isinstance(value, str) else None
