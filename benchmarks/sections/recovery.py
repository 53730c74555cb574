"""Recovery: how long after the death of its agent a task starts again."""

from __future__ import annotations

import time
from functools import partial

from benchmarks.bench import Bench
from benchmarks.contenders import CELERY_LATE, CHIFFON, CHIFFON_THROUGHPUT, BareCelery, Chiffon

NAME = "recovery"


def run(bench: Bench) -> None:
    """Measure Chiffon, and Celery where it is told to acknowledge late: else it loses the task."""
    contenders: list[BareCelery | Chiffon] = [CHIFFON, CHIFFON_THROUGHPUT, CELERY_LATE]
    for number, contender in bench.rounds(bench.chosen(contenders)):
        bench.measure(NAME, "sigkill", contender, number, partial(_round, bench, contender))


def _round(bench: Bench, contender: BareCelery | Chiffon) -> dict[str, float]:
    with bench.stand.ground(contender.template) as ground:
        contender.fill(ground, "linger", 1)
        tally = ground.tally
        first, second = contender.agent(ground, "first"), contender.agent(ground, "second")
        first.launch()
        ground.wait("tasks begun", tally.count, 1)
        second.launch()
        ground.wait("consumers", partial(ground.consumers, contender.queue), 2, pause=0.1)
        killed = time.monotonic_ns()
        ground.kill(first)
        ground.wait("tasks begun again", tally.count, 2)
        return {"restart_s": (tally.notes()[-1].at - killed) / 1e9}
