"""What the clerk is told, by any thread; each has an answer on the event loop, or needs none."""

from __future__ import annotations

import itertools
import threading
import uuid
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field

from chiffon.agent.reading import Direct, Doorbell
from chiffon.agent.run import Report
from chiffon.domain.errors import ChiffonError
from chiffon.domain.tasks import Claim, Fate, NewTask
from chiffon.ledger.settle import Fenced, Recorded, Settlement


def _tokens_of_process() -> Iterator[str]:
    """UUIDs without an end. To draw each by itself would ask the kernel for every one."""
    drawn = str(uuid.uuid4())
    begin, first = drawn[:24], int(drawn[24:], 16)
    for number in itertools.count(first):
        yield f"{begin}{number % 2**48:012x}"


_tokens = _tokens_of_process()


class Refused(ChiffonError):
    """The ledger does not take a delivery's data: it is dead-lettered with this reason."""


@dataclass(frozen=True)
class Hopeless:
    """A claimed task of a work type that no agent has known for long."""

    claim: Claim


@dataclass(frozen=True)
class Unclaimed:
    """Nobody has claimed it: the agent ends, and it is for others."""


Found = Fate | Hopeless | Refused | Unclaimed
"""What becomes of an offer: the fate of its claim, or why there is none."""


@dataclass(frozen=True)
class Offer:
    """A delivery that may be run. ``reply`` is called on the event loop, with what becomes of it."""

    what: Doorbell | Direct
    reply: Callable[[Found], None]
    token: str = field(default_factory=lambda: next(_tokens))

    @property
    def task_id(self) -> str:
        """The task that it rings for."""
        return self.what.task_id if isinstance(self.what, Doorbell) else self.what.task.task_id


@dataclass(frozen=True)
class Finished:
    """A run that is over. ``reply`` is called on the event loop, once the ledger has it."""

    settlement: Settlement
    report: Report
    trace_id: str
    reply: Callable[[Recorded | Fenced], None]
    request_id: str | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The execution."""
        return self.settlement.task_id, self.settlement.execution


@dataclass(frozen=True)
class Condemned:
    """A direct message that nobody can run, and that was dead-lettered: for whoever waits, its task says so."""

    task: NewTask
    reason: str


@dataclass(frozen=True)
class Started:
    """A run has begun, at this monotonic time; or it is about to, and ``reply`` is called on the event loop once the
    ledger knows: the work may take this very process along before another word of it is written.
    """

    task_id: str
    execution: int
    at: float
    reply: Callable[[], None] | None = None

    @property
    def key(self) -> tuple[str, int]:
        """The execution."""
        return self.task_id, self.execution


@dataclass(frozen=True)
class Paid:
    """The message of a task was rejected after this execution, and so dead-lettered, at this monotonic time.

    ``heard``: whether the broker is known to have heard it.
    """

    task_id: str
    execution: int
    at: float
    still_connected: Callable[[], bool]
    heard: Callable[[], bool]


@dataclass(frozen=True)
class Draining:
    """The agent takes nothing new. ``taken`` is set once nothing more is claimed, and all that was has its answer."""

    taken: threading.Event = field(default_factory=threading.Event, compare=False)


Command = Draining | Offer | Finished | Started | Paid | Condemned
"""What the clerk can be told."""
