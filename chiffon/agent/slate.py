"""Slates: memory shared with the pool's processes, where a hand-over of several tasks says how far it is.

A process may die at any moment. What it has written on its slate until then stays: which task it had begun, and the
reports of those that it had ended. So its death costs the one that was running, and nobody else.

Made before the pool forks; one process at a time writes on a slate, and the agent reads it.
"""

from __future__ import annotations

import ctypes
import mmap
import pickle
import time
from typing import Any

SIZE = 256 * 1024
"""Bytes of a slate: reports of more than that go back the ordinary way, and end their hand-over."""

_NOT_YET = -1
_LENGTH = 4
"""Bytes that say how long the report is that follows."""


class _Head(ctypes.Structure):
    """``begun``: the newest task's place. ``limit``: the first place that is not to be begun. ``at``: when."""

    _fields_ = (
        ("begun", ctypes.c_int64),
        ("limit", ctypes.c_int64),
        ("written", ctypes.c_int64),
        ("at", ctypes.c_double),
    )


class Slate:
    """One slate. Times are of the monotonic clock, which parent and child share."""

    def __init__(self, memory: mmap.mmap, number: int) -> None:
        self.number = number
        start = number * SIZE
        self._head = _Head.from_buffer(memory, start)
        self._room = memoryview(memory)[start + ctypes.sizeof(_Head) : start + SIZE]

    # The agent's side

    def wipe(self, places: int) -> None:
        """Make it ready for a hand-over of so many tasks."""
        self._head.begun, self._head.written, self._head.limit = _NOT_YET, 0, places

    @property
    def begun(self) -> tuple[int, float]:
        """The place of the task that was begun last, -1 if none was; and when."""
        return self._head.begun, self._head.at

    def recall(self, limit: int) -> None:
        """Begin nothing from this place on. It is certain for what has not begun a moment later (see `HandOver`)."""
        self._head.limit = limit

    def reports(self, since: int) -> tuple[list[Any], int]:
        """What was noted of tasks that have ended, in their order, and where to read on the next time."""
        found, until = [], self._head.written
        while since < until:
            length = int.from_bytes(self._room[since : since + _LENGTH], "big")
            since += _LENGTH
            found.append(pickle.loads(self._room[since : since + length]))  # noqa: S301 -- our own child's
            since += length
        return found, since

    # The process's side

    def begin(self, place: int) -> bool:
        """Note that a task begins; False: it was recalled, and must not: then nothing has begun, whoever dies now."""
        if place >= self._head.limit:
            return False
        before, self._head.at = self._head.at, time.monotonic()
        self._head.begun = place
        # In this order: whoever recalls writes the limit, and looks a moment later who had begun.
        if place < self._head.limit:
            return True
        self._head.begun, self._head.at = place - 1, before
        return False

    def end(self, place: int, report: Any) -> bool:
        """Note how a task came out, and when it had begun; False: there is no room for it."""
        said = pickle.dumps((place, self._head.at, report), pickle.HIGHEST_PROTOCOL)
        at = self._head.written
        until = at + _LENGTH + len(said)
        if until > len(self._room):
            return False
        self._room[at:until] = len(said).to_bytes(_LENGTH, "big") + said
        self._head.written = until
        return True


class Slates:
    """All of an agent's, lent to one hand-over at a time. Used by one thread; its children inherit it."""

    def __init__(self, many: int) -> None:
        memory = mmap.mmap(-1, many * SIZE)  # anonymous and shared: untouched pages cost nothing
        self._all = [Slate(memory, number) for number in range(many)]
        self._free = list(self._all)

    def lend(self) -> Slate | None:
        """A slate that nobody has, or None."""
        return self._free.pop() if self._free else None

    def give_back(self, slate: Slate) -> None:
        """Nobody writes on it any more."""
        self._free.append(slate)

    def __getitem__(self, number: int) -> Slate:
        return self._all[number]


_made: Slates | None = None


def make_slates(many: int) -> Slates:
    """This agent's slates, made once, before its pool forks."""
    global _made  # what a fork inherits cannot be handed to it
    _made = Slates(many)
    return _made


def slates() -> Slates:
    """The slates that the agent of this process has made."""
    if _made is None:
        raise RuntimeError("this process was not forked by an agent that hands over several tasks at once")
    return _made
