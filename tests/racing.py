"""Races: many threads that begin at once, and sessions that are seen to wait for one another."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable
from typing import Any, TypeVar

T = TypeVar("T")

PATIENCE = 20.0
"""Seconds after which a condition that has not come true never will."""


class Thread(threading.Thread):
    """A thread whose answer, or exception, is asked for."""

    def __init__(self, do: Callable[[], T]) -> None:
        super().__init__(daemon=True)
        self._do = do
        self._answer: Any = None
        self._error: BaseException | None = None
        self.start()

    def run(self) -> None:
        """Do it."""
        try:
            self._answer = self._do()
        except BaseException as error:  # noqa: BLE001  -- whoever asks for the answer gets it
            self._error = error

    def answer(self) -> Any:
        """What it came to. Raises what it raised."""
        self.join(PATIENCE)
        assert not self.is_alive(), "it still waits"
        if self._error is not None:
            raise self._error
        return self._answer


def race(runners: Iterable[Callable[[], T]]) -> list[T]:
    """What each came to, when all of them began at once."""
    started = list(runners)
    line = threading.Barrier(len(started))

    def begin(do: Callable[[], T]) -> Callable[[], T]:
        def run() -> T:
            line.wait()
            return do()

        return run

    return [thread.answer() for thread in [Thread(begin(do)) for do in started]]


def until(condition: Callable[[], T], *, patience: float = PATIENCE) -> T:
    """What a condition says as soon as it is true."""
    deadline = time.monotonic() + patience
    while not (found := condition()):
        assert time.monotonic() < deadline, "it never came true"
        time.sleep(0.01)
    return found
