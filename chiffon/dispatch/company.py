"""Company: what several threads ask at the same time is asked once."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Hashable, Sequence
from queue import SimpleQueue
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 100
"""Questions that are asked together, at most."""

PAUSE = 0.002
"""Seconds that the next question waits for others, if the last one was not alone: its askers ask again soon."""


class _Entry(Generic[Q, A]):
    """A question, until it has an answer.

    ``turn``: something comes when there is one, or when its thread is to ask for all. (A queue is woken in C, an event
    in Python.)
    """

    def __init__(self, question: Q) -> None:
        self.question = question
        self.turn: SimpleQueue[None] = SimpleQueue()
        self.answer: A
        self.error: BaseException | None = None
        self.is_answered = False

    def told(self) -> A:
        """The answer. Raises what asking has raised."""
        if self.error is not None:
            raise self.error
        return self.answer


class Company(Generic[Q, A]):
    """Thread-safe. A caller who is alone, as the last one was, asks at once; others meanwhile go with the next.

    ``ask``: the answers to some questions, in their order. ``apart``: questions for which it is the same are never
    asked together.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Sequence[A]], *, apart: Callable[[Q], Hashable]) -> None:
        self._ask = ask
        self._apart = apart
        self._lock = threading.Lock()
        self._waiting: list[_Entry[Q, A]] = []
        self._is_asking = False
        self._was_alone = True

    def ask(self, question: Q) -> A:
        """The answer to a question. Raises what asking raises, to everybody who was asked for."""
        entry = _Entry[Q, A](question)
        with self._lock:
            self._waiting.append(entry)
            leads, self._is_asking = not self._is_asking, True
        if not leads:
            entry.turn.get()
        if not entry.is_answered:
            self._lead()
        return entry.told()

    def _lead(self) -> None:
        if not self._was_alone:
            time.sleep(PAUSE)
        with self._lock:
            batch = self._take()
        self._was_alone = len(batch) == 1
        try:
            for entry, answer in zip(batch, self._ask([entry.question for entry in batch]), strict=True):
                entry.answer = answer
        except BaseException as error:  # noqa: BLE001 -- each of them raises it
            for entry in batch:
                entry.error = error
        finally:
            for entry in batch:
                entry.is_answered = True
            with self._lock:
                self._is_asking = bool(self._waiting)
                heir = self._waiting[0] if self._waiting else None
            for entry in batch:
                entry.turn.put(None)
            if heir is not None:
                heir.turn.put(None)

    def _take(self) -> list[_Entry[Q, A]]:
        """The first one that waits, and whoever may go with it."""
        batch: list[_Entry[Q, A]] = []
        left: list[_Entry[Q, A]] = []
        seen: set[Hashable] = set()
        for entry in self._waiting:
            apart = self._apart(entry.question)
            (left if apart in seen or len(batch) >= MOST else batch).append(entry)
            seen.add(apart)
        self._waiting = left
        return batch
