"""Messages that nobody would write, and good ones among them: as many as are wanted, the same ones from one seed."""

from __future__ import annotations

import bz2
import gzip
import json
import random
import string
import uuid
import zlib
from collections.abc import Callable, Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from datetime import UTC, datetime
from typing import Any

from chiffon.bus.letters import DOORBELL
from chiffon.domain.ids import derived_id
from tests.bells import UNREADABLE_PROPERTIES

AS_JSON = {"content_type": "application/json", "content_encoding": "utf-8"}
NAMES = [
    *("echo", "fail", "slow_echo", "no.such.work", "chiffon.after_end", "chiffon.release_chord"),
    *("celery.accumulate", "celery.chord", "celery.chord_unlock", "celery.chunks", "celery.group", "celery.map"),
]
HEADERS = [
    *("id", "task", "request_id", "trace_id", "root_id", "parent_id", "group", "timelimit", "eta", "expires", "lang"),
    *("compression", "group_index", "ignore_result", "replaced_task_nesting", "shadow", "stamped_headers", "stamps"),
    *("reply_to", "retries", "argsrepr", "kwargsrepr", "origin", DOORBELL),
]
"""Not `x-death`: a list that is none of RabbitMQ's own there ends the whole queue when it is dead-lettered (3.10)."""
COMPRESSIONS: dict[str, Callable[[bytes], bytes]] = {
    "application/x-gzip": zlib.compress,
    "gzip": gzip.compress,
    "bzip2": bz2.compress,
}


@dataclass(frozen=True)
class Noise:
    """A message. ``mark``: stands in its body if it may be work; ``good``: it is work, and must be done.

    ``again``: it is about a task that another message has named. ``properties``: by their AMQP names, or the bytes that
    stand for all of them and for the headers.
    """

    body: bytes
    mark: str
    good: bool = False
    again: bool = False
    headers: dict[str, Any] = field(default_factory=dict)
    properties: dict[str, Any] | bytes = field(default_factory=lambda: dict(AS_JSON))

    @property
    def named(self) -> dict[str, str]:
        """The ids of the tasks that the message may be about, as far as anybody could see; by id, the word for it."""
        said = _json_object(self.body)
        properties = self.properties if isinstance(self.properties, dict) else {}
        names = {name: name for name in (self.headers.get("id"), said.get("task_id")) if isinstance(name, str)}
        messages = (said.get("message_id"), properties.get("message_id"))
        return names | {derived_id("message", name): name for name in messages if isinstance(name, str)}


class Source:
    """Makes noise, by its own dice."""

    def __init__(self, seed: int) -> None:
        self._dice = random.Random(seed)  # noqa: S311  -- to be repeated, not to be secret
        self._number = 0
        self._good: list[Noise] = []
        self._kinds: list[tuple[int, Callable[[], Noise]]] = [
            (12, self._bytes),
            (8, self._json),
            (20, self._envelope),
            (14, self._native),
            (18, self._bent_envelope),
            (24, self._bent_native),
            (8, self._compressed),
            (8, self._mislabelled),
            (8, self._again),
            (3, self._false_doorbell),
            (3, self._impostor),
            (1, self._unreadable),
        ]

    def messages(self, count: int) -> Iterator[Noise]:
        """Return ``count`` messages; among them, at places of their own, three bombs."""
        weights = [weight for weight, _ in self._kinds]
        bombs = set(self._dice.sample(range(count), 3))
        for number in range(count):
            if number in bombs:
                yield self._bomb()
                continue
            (kind,) = self._dice.choices([make for _, make in self._kinds], weights)
            yield kind()

    # The kinds

    def _bytes(self) -> Noise:
        body = self._mark().encode() + self._dice.randbytes(self._dice.randrange(200))
        return Noise(body, "", headers=self._headers(), properties=self._properties())

    def _json(self) -> Noise:
        body = json.dumps([self._mark(), self._value(4)]).encode()
        return Noise(body, "", headers=self._headers(), properties=self._properties())

    def _envelope(self) -> Noise:
        return self._keep(self._written(self._good_envelope()))

    def _native(self) -> Noise:
        mark = self._mark()
        body = self._dice.choice([[[mark], {}, None], [[], {"input": mark}, {}]])
        headers = {"task": "echo", "id": str(self._uuid()), "lang": "py"}
        if self._chance(0.3):
            headers |= {"root_id": str(self._uuid()), "parent_id": None, "timelimit": [None, None], "retries": 0}
        return self._keep(Noise(json.dumps(body).encode(), mark, good=True, headers=headers))

    def _bent_envelope(self) -> Noise:
        envelope = self._good_envelope()
        mark = envelope["payload"]["parameters"]["input"]
        envelope["note"] = mark  # whatever is bent, it can be told from all others
        for _ in range(self._dice.randint(1, 3)):
            self._bend(self._dice.choice([envelope, envelope, envelope.get("payload")]))
        return self._written(envelope, mark)

    def _bent_native(self) -> Noise:
        mark = self._mark()
        headers: dict[str, Any] = {"task": self._dice.choice(NAMES), "id": str(self._uuid()), "lang": "py"}
        headers |= {self._dice.choice(HEADERS): self._header() for _ in range(self._dice.randrange(4))}
        embedded = {name: self._value(3) for name in ("callbacks", "errbacks", "chain", "chord") if self._chance(0.15)}
        body: Any = [[], {"input": mark}, embedded or None]
        if self._chance(0.3):
            body[self._dice.randrange(3)] = self._value(3)
            body.append(mark) if self._chance(0.1) else None
        if self._chance(0.1):
            body = {"input": mark, "other": self._value(2)}
        text = json.dumps(body)
        written = text if mark in text else text + " " * (1 + self._number)  # told from all others by its length
        properties = self._properties() if self._chance(0.2) else dict(AS_JSON)
        return Noise(written.encode(), mark, headers=headers, properties=properties)

    def _compressed(self) -> Noise:
        name, compress = self._dice.choice(list(COMPRESSIONS.items()))
        plain = self._written(self._good_envelope())
        packed = compress(plain.body)
        if self._chance(0.5):
            return replace(plain, body=packed, headers={"compression": name}, good=False)
        broken = packed[: self._dice.randrange(len(packed))] + plain.mark.encode()
        return replace(plain, body=broken, headers={"compression": self._dice.choice([name, "zstd"])}, good=False)

    def _mislabelled(self) -> Noise:
        plain = self._written(self._good_envelope())
        return replace(plain, good=False, headers=self._headers(), properties=self._properties())

    def _again(self) -> Noise:
        if not self._good:
            return self._native()
        first = self._dice.choice(self._good)
        envelope = json.loads(first.body)
        if isinstance(envelope, dict) and not envelope.keys() & {"task_id", "message_id", "request_id"}:
            return self._native()  # that one could not be told from other work of the same kind
        if isinstance(envelope, dict) and "request_id" in envelope and self._chance(0.5):
            envelope["task_id"] = str(self._uuid())  # another message of one request
            return replace(first, body=json.dumps(envelope).encode(), again=True)
        return replace(first, again=True)

    def _false_doorbell(self) -> Noise:
        named = self._dice.choice(self._good).named if self._good and self._chance(0.5) else {}
        headers = {DOORBELL: self._header(), "id": next(iter(named), str(self._uuid())), "task": "echo"}
        return Noise(self._mark().encode(), "", again=bool(named), headers=headers)

    def _impostor(self) -> Noise:
        """It has the name of another's task, and is neither a doorbell nor work: nobody may take it for done."""
        if not self._good:
            return self._bytes()
        name = next(iter(self._dice.choice(self._good).named), str(self._uuid()))
        return Noise(self._mark().encode(), "", headers={"id": name, "task": "echo", "lang": "py"})

    def _unreadable(self) -> Noise:
        encoded = self._dice.choice(list(UNREADABLE_PROPERTIES.values()))
        return replace(self._written(self._good_envelope()), good=False, properties=encoded)

    def _bomb(self) -> Noise:
        mark = self._mark()
        packed = zlib.compress(mark.encode() + bytes(100_000_000))
        return Noise(packed, "", headers={"compression": "application/x-gzip"})

    # Their parts

    def _keep(self, noise: Noise) -> Noise:
        self._good.append(noise)
        return noise

    def _written(self, envelope: dict[str, Any], mark: str = "") -> Noise:
        mark_of_good = mark or envelope["payload"]["parameters"]["input"]
        return Noise(json.dumps(envelope).encode(), mark_of_good, good=not mark)

    def _good_envelope(self) -> dict[str, Any]:
        envelope: dict[str, Any] = {
            "protocol_version": "1.0",
            "type": "work_request",
            "payload": {"work_type": "echo", "parameters": {"input": self._mark()}},
        }
        made = {
            "task_id": str(self._uuid()),
            "message_id": str(self._uuid()),
            "request_id": str(self._uuid()),
            "trace_id": self._uuid().hex,
            "priority": self._dice.randint(1, 5),
        }
        return envelope | {name: value for name, value in made.items() if self._chance(0.5)}

    def _bend(self, members: Any) -> None:
        if not isinstance(members, dict) or not members:
            return
        name = self._dice.choice([name for name in members if name != "note"] or ["more"])
        if self._chance(0.3):
            members.pop(name, None)
        else:
            members[name] = self._value(3)

    def _headers(self) -> dict[str, Any]:
        return {self._dice.choice(HEADERS): self._header() for _ in range(self._dice.randrange(3))}

    def _properties(self) -> dict[str, Any]:
        possible = {
            "content_type": self._dice.choice(["application/json", "text/plain", "application/x-python-serialize", ""]),
            "content_encoding": self._dice.choice(["utf-8", "utf-16", "binary", "ebcdic", "base64", ""]),
            "message_id": self._text(),
            "correlation_id": self._text(),
            "reply_to": self._text(),
            "priority": self._dice.randrange(256),
            "timestamp": self._dice.randrange(2 ** self._dice.randrange(33)),
            "expiration": str(self._dice.choice([0, 1, 60_000])),
            "type": self._text(),
            "app_id": self._text(),
            "delivery_mode": self._dice.choice([1, 2]),
        }
        return {name: value for name, value in possible.items() if self._chance(0.4)}

    def _header(self) -> Any:
        """A value that AMQP has a word for."""
        return self._dice.choice(
            [
                None,
                True,
                self._dice.randint(-(2**63), 2**63 - 1),
                self._dice.uniform(-1e6, 1e6),
                self._text(),
                self._dice.randbytes(5),
                datetime(2020, 1, 1, tzinfo=UTC).isoformat(),
                "9999-12-31T23:59:59-14:00",
                [1, "two", {"three": None}],
                {"a": {"b": [self._text()]}},
                [0.2, 0.1],
            ]
        )

    def _value(self, depth: int) -> Any:
        """A value that Python's JSON has a word for, which is more than JSON has."""
        leaves: list[Any] = [
            *(None, True, False, 0, -1, 10**40, 1.5, float("nan"), float("inf"), "", "\x00", "\ud800", "echo"),
            *(self._text(), "x" * self._dice.randrange(3_000), self._dice.choice(NAMES)),
        ]
        if depth and self._chance(0.4):
            if self._chance(0.5):
                return [self._value(depth - 1) for _ in range(self._dice.randrange(4))]
            names = ["task", "args", "kwargs", "options", "subtask_type", "chord_size", self._text()]
            return {self._dice.choice(names): self._value(depth - 1) for _ in range(self._dice.randrange(4))}
        return self._dice.choice(leaves)

    def _text(self) -> str:
        letters = string.ascii_letters + string.digits + "-_. \t\nüß日🧵"
        return "".join(self._dice.choices(letters, k=self._dice.randrange(30)))

    def _mark(self) -> str:
        self._number += 1
        return f"mark-{self._number:06}."

    def _uuid(self) -> uuid.UUID:
        return uuid.UUID(int=self._dice.getrandbits(128), version=4)

    def _chance(self, probability: float) -> bool:
        return self._dice.random() < probability


def _json_object(body: bytes) -> dict[str, Any]:
    with suppress(ValueError, RecursionError):
        if isinstance(value := json.loads(body), dict):
            return value
    return {}
