"""Company: what several threads ask at the same time is asked once, and nobody waits for others to come."""

from __future__ import annotations

import threading
from collections.abc import Callable, Hashable, Sequence
from typing import Generic, TypeVar

Q = TypeVar("Q")
A = TypeVar("A")

MOST = 100
"""Questions that are asked together, at most."""


class _Entry(Generic[Q, A]):
    """A question, until it has an answer; ``turn`` is set when there is one, or when its thread is to ask for all."""

    def __init__(self, question: Q) -> None:
        self.question = question
        self.turn = threading.Event()
        self.answer: A
        self.error: BaseException | None = None
        self.is_answered = False

    def told(self) -> A:
        """The answer. Raises what asking has raised."""
        if self.error is not None:
            raise self.error
        return self.answer


class Company(Generic[Q, A]):
    """Thread-safe. Whoever comes while nobody asks, asks at once; who comes meanwhile is asked for by the next.

    ``ask``: the answers to some questions, in their order. ``apart``: questions for which it is the same are never
    asked together.
    """

    def __init__(self, ask: Callable[[Sequence[Q]], Sequence[A]], *, apart: Callable[[Q], Hashable]) -> None:
        self._ask = ask
        self._apart = apart
        self._lock = threading.Lock()
        self._waiting: list[_Entry[Q, A]] = []
        self._is_asking = False

    def ask(self, question: Q) -> A:
        """The answer to a question. Raises what asking raises, to everybody who was asked for."""
        entry = _Entry[Q, A](question)
        with self._lock:
            self._waiting.append(entry)
            leads, self._is_asking = not self._is_asking, True
        if not leads:
            entry.turn.wait()
        if not entry.is_answered:
            self._lead()
        return entry.told()

    def _lead(self) -> None:
        with self._lock:
            batch = self._take()
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
                entry.turn.set()
            if heir is not None:
                heir.turn.set()

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
