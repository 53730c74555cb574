"""What is being said to and by the pool's processes when the broker goes away is said to its end."""

from __future__ import annotations

import inspect
import os
import signal
import time
from collections.abc import Callable, Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from chiffon.agent.killing import finish_reads, finish_reads_before_resets, kill, resume_writes

PATIENCE = 30.0
MANY = 4_000_000
"""Bytes: far more than a pipe takes."""


class Loop:
    """A real pool of one process, on an event loop of its own."""

    def __init__(self) -> None:
        self.hub = Hub()
        self.pool = AsynPool(processes=1, threads=False)
        self.results: list[Any] = []
        self.register()

    def register(self) -> None:
        """As after each connect."""
        self.pool.register_with_event_loop(self.hub)

    def order(self, call: Callable[..., Any], *args: Any) -> None:
        """Have the process do this."""
        self.pool.apply_async(call, args, callback=self.results.append)

    def until(self, condition: Callable[[], object]) -> None:
        """Run the loop until this is so."""
        deadline = time.monotonic() + PATIENCE
        loop = self.hub.create_loop()
        while not condition():
            assert time.monotonic() < deadline, f"it is not so after {PATIENCE:g} s"
            next(loop)

    def read_a_part(self) -> int:
        """Read a part of a large result, and return how many came before it: some may come at once, as a whole."""
        known = len(self.results)
        self.order(many, MANY)
        self.until(lambda: self._is_reading() or len(self.results) > known)
        return known if self._is_reading() else self.read_a_part()

    def _is_reading(self) -> bool:
        return any(reader and inspect.isgenerator(reader[0]) for reader in self.hub.readers.values())

    def end(self) -> None:
        """End it, whatever state its pipes are in."""
        for process in self.pool._pool:
            kill(process.pid)
        self.pool.terminate()
        self.pool.join()
        self.hub.close()


@pytest.fixture
def loop() -> Iterator[Loop]:
    found = Loop()
    yield found
    found.end()


def many(number: int) -> bytes:
    """Give back so many bytes."""
    return b"\x7f" * number


def test_a_result_that_is_half_read_when_the_connection_is_lost_is_read_to_its_end(loop: Loop) -> None:
    finish_reads_before_resets(loop.hub, SimpleNamespace(_pool=loop.pool))
    before = loop.read_a_part()

    loop.hub.reset()
    loop.register()
    loop.order(many, 1)

    loop.until(lambda: len(loop.results) == before + 2)
    assert [len(result) for result in loop.results[before:]] == [MANY, 1]


def test_a_result_that_is_half_read_when_the_next_connection_stands_is_read_to_its_end(loop: Loop) -> None:
    before = loop.read_a_part()

    finish_reads(SimpleNamespace(_pool=loop.pool))
    loop.register()
    loop.order(many, 1)

    loop.until(lambda: len(loop.results) == before + 2)
    assert [len(result) for result in loop.results[before:]] == [MANY, 1]


def test_what_is_half_written_when_the_connection_is_lost_is_written_on_and_a_slow_process_is_left_in_peace(
    loop: Loop,
) -> None:
    [process] = loop.pool._pool
    loop.order(os.getpid)
    loop.until(lambda: loop.results == [process.pid])
    os.kill(process.pid, signal.SIGSTOP)
    loop.order(len, many(MANY))
    loop.until(lambda: loop.pool._active_writers)

    loop.hub.reset()
    resume_writes(SimpleNamespace(_pool=loop.pool), loop.hub)
    loop.register()
    os.kill(process.pid, signal.SIGCONT)

    loop.until(lambda: len(loop.results) == 2)
    loop.order(os.getpid)
    loop.until(lambda: len(loop.results) == 3)
    assert loop.results == [process.pid, MANY, process.pid]
