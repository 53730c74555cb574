"""What was done, to whom, and from when to when: by it the audit tells what is excused."""

from __future__ import annotations

import threading
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace

OF_THE_RUN = frozenset({"exit"})
"""Incidents that are no faults of the plan: a program that ended by itself."""


@dataclass(frozen=True)
class Incident:
    """Something that happened to ``target``. Times are seconds since the epoch; ``ended`` is None while it lasts.

    ``happened``: False where a fault met nobody.
    """

    kind: str
    target: str
    detail: str
    began: float
    ended: float | None = None
    happened: bool = True

    @property
    def seconds(self) -> float:
        """How long it lasted."""
        return float("inf") if self.ended is None else self.ended - self.began

    def touches(self, start: float, end: float, *, slack: float = 0.0) -> bool:
        """Whether it was going on at some moment between the two, or up to ``slack`` seconds before."""
        over = float("inf") if self.ended is None else self.ended
        return self.began <= end and over + slack >= start

    def __str__(self) -> str:
        """In a line."""
        lasted = "" if self.ended is None else f" ({self.ended - self.began:.1f} s)"
        return f"{self.kind} {self.target} {self.detail}{lasted}"


class Incidents:
    """The log of them. Thread-safe."""

    def __init__(self) -> None:
        self._lock = threading.Lock()
        self._all: list[Incident] = []

    @contextmanager
    def during(self, kind: str, target: str, detail: str = "") -> Iterator[Note]:
        """Log what goes on meanwhile."""
        note = Note()
        with self._lock:
            number = len(self._all)
            self._all.append(Incident(kind, target, detail, time.time()))
        try:
            yield note
        finally:
            with self._lock:
                began = self._all[number]
                self._all[number] = replace(
                    began, ended=time.time(), happened=note.happened, detail=f"{detail} {note.said}".strip()
                )

    def happened(self, kind: str, target: str, detail: str = "") -> None:
        """Log what is over in a moment."""
        now = time.time()
        with self._lock:
            self._all.append(Incident(kind, target, detail, now, now))

    def all(self) -> list[Incident]:
        """Everything so far, in the order in which it began."""
        with self._lock:
            return list(self._all)

    def now(self) -> list[Incident]:
        """What lasts still."""
        return [incident for incident in self.all() if incident.ended is None]


@dataclass
class Note:
    """What is found out about an incident while it lasts."""

    happened: bool = True
    said: str = ""
