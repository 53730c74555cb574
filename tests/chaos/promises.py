"""What the clients were told: by it the product is held to its word."""

from __future__ import annotations

import time
from dataclasses import dataclass, field

from tests.chaos.plan import Order


@dataclass(frozen=True)
class Promise:
    """An accepted dispatch. ``at``: when the answer came. ``duplicate``: the answer said so. ``asked``: how often."""

    task_id: str
    order: Order
    at: float
    duplicate: bool
    asked: int


@dataclass(frozen=True)
class Said:
    """The answer to a cancel, a replay, or a hand in the dead letters. ``code``: None if nobody knows what happened."""

    verb: str
    task_id: str
    code: int | None
    at: float


@dataclass(frozen=True)
class Sent:
    """A message that was published past the API. ``confirmed``: the broker had it, at ``at``."""

    task_id: str
    order: Order
    at: float
    confirmed: bool


@dataclass
class Promises:
    """Everything that clients remember. Any thread may append."""

    accepted: list[Promise] = field(default_factory=list)
    said: list[Said] = field(default_factory=list)
    sent: list[Sent] = field(default_factory=list)
    given_up: list[Order] = field(default_factory=list)
    surprises: list[str] = field(default_factory=list)

    def accept(self, task_id: str, order: Order, *, duplicate: bool, asked: int) -> None:
        """The API has accepted."""
        self.accepted.append(Promise(task_id, order, time.time(), duplicate, asked))

    def ids(self) -> list[str]:
        """The accepted tasks, each once, in the order in which they were."""
        return list(dict.fromkeys(promise.task_id for promise in self.accepted))
