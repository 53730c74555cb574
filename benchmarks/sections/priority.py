"""Priority: how soon an urgent task starts behind a backlog."""

from __future__ import annotations

import statistics
import time
from functools import partial

from benchmarks.bench import Bench
from benchmarks.contenders import CHIFFON, CHIFFON_THROUGHPUT, Chiffon, waiting
from benchmarks.errors import RoundFailed
from benchmarks.tally import Tally

NAME = "priority"

DEEDS = ("noop", "nap")
"""What the backlog is made of."""

URGENT = 10
"""Urgent tasks a round, one after the other."""

_FIRST = 2_000_000_000
"""The key of the first of them."""


def run(bench: Bench) -> None:
    """Measure both profiles."""
    for deed in DEEDS:
        for number, contender in bench.rounds(bench.chosen((CHIFFON, CHIFFON_THROUGHPUT))):
            bench.measure(NAME, f"behind-{deed}", contender, number, partial(_round, bench, contender, deed))


def _round(bench: Bench, contender: Chiffon, deed: str) -> dict[str, float]:
    count = bench.sizes.backlog
    with bench.stand.ground(contender.template) as ground, contender.api(ground) as url:
        with ground.database() as database:
            contender.dispatch(url, deed, count)
            ground.wait("confirmed", lambda: -waiting(database, "pending"), 0)
        tally = ground.tally
        contender.start(ground)
        ground.wait("tasks run", tally.count, count // 20)
        times: list[float] = []
        for key in range(_FIRST, _FIRST + URGENT):
            begun = time.monotonic_ns()
            contender.dispatch(url, "noop", 1, priority=5, parameters={"key": key})
            ground.wait("urgent tasks run", partial(_runs_of, tally, key), 1, pause=0.05)
            notes = tally.notes()
            if len(notes) - len(times) - 1 >= count:
                break  # the backlog was gone before: there was nothing to overtake
            times.append((next(note.at for note in notes if note.key == key) - begun) / 1e6)
    if not times:
        raise RoundFailed("the backlog was done before an urgent task came")
    return {"start_median_ms": statistics.median(times), "start_most_ms": max(times), "urgent_tasks": len(times)}


def _runs_of(tally: Tally, key: int) -> int:
    return sum(note.key == key for note in tally.notes())
