"""Latency: from dispatch to the task's start, and to its result in the caller's hands, at a given rate of arrival."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import partial

from benchmarks.bench import Bench
from benchmarks.contenders import (
    CELERY_DATABASE,
    CELERY_RPC,
    CHIFFON,
    CHIFFON_THROUGHPUT,
    BareCelery,
    Chiffon,
)
from benchmarks.errors import RoundFailed
from benchmarks.stand import Ground

NAME = "latency"

PERCENTS = (50, 95, 99)

WARM_UP = 0.1
"""The part of the arrivals that is not counted."""


@dataclass(frozen=True)
class Caller:
    """A contender, and how its caller waits: by `AsyncResult.get` or by `Prefer: wait`.

    ``longest``: seconds after which a client is free again; that many clients are needed.
    """

    contender: BareCelery | Chiffon
    way: str
    longest: float

    @property
    def name(self) -> str:
        """The contender's."""
        return self.contender.name

    def clients(self, rate: int) -> int:
        """How many must be there for nobody to have to wait for a free one."""
        return max(4, math.ceil(rate * self.longest))

    def measure(self, bench: Bench, rate: int) -> dict[str, float]:
        """Return percentiles in milliseconds."""
        count = bench.sizes.latency[rate]
        with bench.stand.ground(self.contender.template) as ground, self._address(ground) as address:
            self.contender.start(ground)
            ground.wait("consumers", partial(ground.consumers, self.contender.queue), 1, pause=0.1)
            environment = {**self.contender.environment(ground), **_CLIENT}
            sizes = (str(rate), str(count), str(self.clients(rate)))
            command = ("benchmarks.apps.latency_client", self.way, *sizes, *address)
            found = ground.ask("client", *command, environment=environment)
            started = {note.key: note.at for note in ground.tally.notes()}
        if missing := [key for key, _, _ in found if key not in started]:
            raise RoundFailed(f"{len(missing)} of {count} tasks left no note")
        counted = found[int(count * WARM_UP) :]
        return {
            **percentiles("start", [started[key] - due for key, due, _ in counted]),
            **percentiles("result", [known - due for _, due, known in counted]),
        }

    @contextlib.contextmanager
    def _address(self, ground: Ground) -> Iterator[Sequence[str]]:
        if self.way == "wait" and isinstance(self.contender, Chiffon):
            with self.contender.api(ground) as url:
                yield [url]
        else:
            yield []


_CLIENT = {"BENCH_API_KEY": Chiffon.KEY}

CALLERS = (
    Caller(CHIFFON, "get", 0.1),
    Caller(CHIFFON_THROUGHPUT, "get", 0.1),
    Caller(CELERY_RPC, "get", 0.1),
    Caller(CELERY_DATABASE, "get", 0.7),  # it looks twice a second
    Caller(CHIFFON, "wait", 0.1),
    Caller(CHIFFON_THROUGHPUT, "wait", 0.1),
)


def run(bench: Bench) -> None:
    """Measure every caller at every rate."""
    for rate in bench.sizes.latency:
        for number, caller in bench.rounds(bench.chosen(CALLERS)):
            bench.measure(NAME, f"{caller.way}@{rate}", caller, number, partial(caller.measure, bench, rate))


def percentiles(what: str, times: Sequence[int]) -> dict[str, float]:
    """Return the percentiles of some times in nanoseconds, in milliseconds, by name; by nearest rank."""
    ordered = sorted(times)
    return {f"{what}_p{p}_ms": ordered[math.ceil(p / 100 * len(ordered)) - 1] / 1e6 for p in PERCENTS}
