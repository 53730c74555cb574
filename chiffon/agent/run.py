"""One run of one claimed task, in the process or thread that does the work: what it says is caught, not sent.

Celery stores results and publishes continuations from inside the run. Here both are kept until the run is over and
go to the worker's main process, which writes them down in the commit that settles the task. That need not have the
classes of the work, and one that it cannot import would end it: what goes there is plain.
"""

from __future__ import annotations

import json
import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from typing import Any

from chiffon.domain.values import canonical
from chiffon.domain.verdicts import Completed, Verdict
from chiffon.ledger.results import StoredResult


def plain(value: object) -> Any:
    """What JSON says of a value, without the classes of whoever made it. Raises TypeError if it cannot say it."""
    return json.loads(canonical(value))


@dataclass(frozen=True)
class Draft:
    """A task that Celery would publish now: protocol 2 headers, the three items of the body, and how it is routed.

    ``refused``: why it cannot be; then its arguments and parameters are left out.
    """

    headers: dict[str, Any]
    arguments: list[Any]
    parameters: dict[str, Any]
    embed: dict[str, Any]
    priority: int | None
    routing_key: str | None
    refused: str | None = None

    def __post_init__(self) -> None:
        # The rest has been JSON already; this is as the work has said it.
        object.__setattr__(self, "priority", plain(self.priority))
        object.__setattr__(self, "routing_key", plain(self.routing_key))


@dataclass(frozen=True)
class ChordPart:
    """A part of a chord that has ended.

    ``callback``: the chord's body, as a signature's dict. ``size``: how many parts there are, if the body says so.
    """

    group_id: str
    task_id: str
    status: str
    callback: dict[str, Any]
    size: int | None


@dataclass(frozen=True)
class ChordBegun:
    """A chord that is to wait for its parts. ``tree``: of its header, as JSON text; None if that is not known whole."""

    group_id: str
    tree: str | None


@dataclass
class Report:
    """What a run has to say, in one piece that can be sent between processes.

    ``shown``: the result's repr. ``anew``: what the task is to run next time, as a retry or a replacement says it.
    ``children``: the tasks that it has called, as Celery keeps them beside a result, as JSON text.
    ``side_results``: results that the run decides for other tasks: the rest of a chain that will not run.
    ``chords``: those that begin with what follows; ``chord_sizes``: of how many parts each of them is.
    ``deferred``: what the end sets off is not in here: a task of its own sees to it, once the end is settled.
    """

    verdict: Verdict | None = None
    runtime: float | None = None
    shown: str | None = None
    children: str | None = None
    anew: Draft | None = None
    drafts: list[Draft] = field(default_factory=list)
    side_results: list[StoredResult] = field(default_factory=list)
    chord_parts: list[ChordPart] = field(default_factory=list)
    chords: list[ChordBegun] = field(default_factory=list)
    chord_sizes: dict[str, int] = field(default_factory=dict)
    deferred: bool = False

    def __reduce_ex__(self, protocol: Any) -> str | tuple[Any, ...]:
        # Most runs come to a result and set nothing off: their reports are by far the most that is sent.
        if isinstance(self.verdict, Completed) and not self.sets_off and self.anew is None and not self.deferred:
            return _plain, (self.verdict.result, self.runtime, self.shown, self.children)
        return super().__reduce_ex__(protocol)

    @property
    def sets_off(self) -> bool:
        """Whether anything is to be written down beside the end itself."""
        return bool(self.drafts or self.side_results or self.chord_parts or self.chords or self.chord_sizes)

    def set_nothing_off(self) -> None:
        """Forget what was to follow: the end has become another."""
        for noted in (self.drafts, self.side_results, self.chord_parts, self.chords, self.chord_sizes):
            noted.clear()


def _plain(result: str, runtime: float | None, shown: str | None, children: str | None) -> Report:
    """The report of a run that only came to a result."""
    return Report(Completed(result), runtime, shown, children)


@dataclass
class Run:
    """The run that the current thread is in. ``ending``: the work has returned; what is published now follows it.

    ``entered``: the work was begun; what is called from then on is not the run's own task.
    ``incarnation``: of the agent that runs it.
    """

    task_id: str
    execution: int
    trace_id: str
    request_id: str
    attempt: int
    retries: int
    max_retries: int | None
    timeout: float
    incarnation: int | None = None
    report: Report = field(default_factory=Report)
    began: float = field(default_factory=time.monotonic)
    entered: bool = False
    ending: bool = False


_current = threading.local()


def current() -> Run | None:
    """The run that this thread is in, or None."""
    return getattr(_current, "run", None)


@contextmanager
def running(run: Run) -> Iterator[Run]:
    """Be in a run."""
    before, _current.run = current(), run
    try:
        yield run
    finally:
        _current.run = before
