"""The tasks that every contender runs; each leaves one note, at its end but for `linger`."""

from __future__ import annotations

import time

from benchmarks.tally import note

SPIN = 1_000_000
"""Nanoseconds of processor time."""

NAP = 0.010
"""Seconds of waiting."""

LONG = 600
"""Seconds."""


def noop(key: int) -> None:
    """Do nothing."""
    note(key)


def spin(key: int) -> None:
    """Keep the processor busy for a millisecond of its own time, however long others hold it meanwhile."""
    until = time.thread_time_ns() + SPIN
    while time.thread_time_ns() < until:
        pass
    note(key)


def nap(key: int) -> None:
    """Wait ten milliseconds, as for another service's answer."""
    time.sleep(NAP)
    note(key)


def linger(key: int) -> None:
    """Say at once that it has begun, and go on for longer than anybody watches."""
    note(key)
    time.sleep(LONG)


DEEDS = {deed.__name__: deed for deed in (noop, spin, nap, linger)}
"""By name."""
