"""Drain: how fast tasks that wait are done."""

from __future__ import annotations

import time
from collections.abc import Sequence
from functools import partial
from itertools import pairwise

from benchmarks.bench import Bench
from benchmarks.contenders import DRAINERS, Contender
from benchmarks.errors import RoundFailed
from benchmarks.options import PROCESSES
from benchmarks.stand import Ground
from benchmarks.tally import Note

NAME = "drain"

WARM_UP = 0.1
"""The part of the tasks that is done before the clock starts: start-up is nobody's figure."""


def run(bench: Bench) -> None:
    """Measure every deed."""
    for deed, count in bench.sizes.drain.items():
        for number, contender in bench.rounds(bench.chosen(DRAINERS)):
            bench.measure(NAME, deed, contender, number, partial(_round, bench, contender, deed, count))


def _round(bench: Bench, contender: Contender, deed: str, count: int) -> dict[str, float]:
    with bench.stand.ground(contender.template, together=PROCESSES) as ground:
        contender.fill(ground, deed, count)
        return drain(ground, contender, count)


def drain(ground: Ground, contender: Contender, count: int) -> dict[str, float]:
    """Start the worker on ``count`` waiting tasks and return ``tasks_per_s``, ``runs`` and the longest ``pause_ms``.

    All processes begin together. The clock starts when a tenth of the tasks has run, and stops when the last one is
    done: has run, and where ends are kept, all ends are to be read in the database. Raises RoundFailed.
    """
    with ground.database() as database:
        tally = ground.tally
        contender.start(ground)
        ground.wait("tasks run", tally.count, count)
        ground.wait("ends written down", lambda: contender.ended(database, count), count)
        seen = time.monotonic_ns()
    notes = tally.notes()
    done = seen if contender.keeps_ends else notes[-1].at
    return {"tasks_per_s": rate(notes, count, done), "runs": len(notes), "pause_ms": longest_pause(notes)}


def longest_pause(notes: Sequence[Note]) -> float:
    """Milliseconds in which nothing was run, once the warm-up was over."""
    warm = notes[int(len(notes) * WARM_UP) :]
    return max((after.at - before.at for before, after in pairwise(warm)), default=0) / 1e6


def rate(notes: Sequence[Note], count: int, done: int) -> float:
    """Tasks per second from the end of the warm-up to ``done`` (nanoseconds), of ``count`` tasks.

    Raises RoundFailed when a task did not run, or when there was no work for all processes.
    """
    if len({note.key for note in notes}) < count:
        raise RoundFailed(f"only {len({note.key for note in notes})} of {count} tasks left a note")
    begins: dict[int, int] = {}
    for position, note in enumerate(notes):
        begins.setdefault(note.pid, position)
    if len(begins) < PROCESSES:
        raise RoundFailed(f"one process did all the work, where {PROCESSES} were to")
    warm = max(int(len(notes) * WARM_UP), sorted(begins.values())[PROCESSES - 1])
    return (len(notes) - warm - 1) / ((done - notes[warm].at) / 1e9)
