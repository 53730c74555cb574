"""Memory: what the API and an agent hold after many tasks, and while many wait; and their connections to Postgres."""

from __future__ import annotations

from functools import partial
from urllib.parse import urlsplit

import psutil

from benchmarks.bench import Bench
from benchmarks.contenders import CHIFFON, CHIFFON_THROUGHPUT, Chiffon, Database, waiting
from benchmarks.stand import Ground
from chiffon.devstack.process import Process

NAME = "memory"

_CHUNK = 20_000
"""Tasks that are dispatched before those before them must be done."""


def run(bench: Bench) -> None:
    """Measure both profiles; once each, for it takes many tasks."""
    for contender in bench.chosen((CHIFFON, CHIFFON_THROUGHPUT)):
        bench.measure(NAME, "agent", contender, 1, partial(_over_many, bench, contender))
        bench.measure(NAME, "waiting", contender, 1, partial(_while_many_wait, bench, contender))


def _over_many(bench: Bench, contender: Chiffon) -> dict[str, float]:
    early, late = bench.sizes.memory
    with (
        bench.stand.ground(contender.template) as ground,
        ground.database() as database,
        contender.api(ground) as url,
    ):
        api, agent = ground.running("api"), contender.agent(ground)
        agent.launch()
        _do(ground, contender, database, url, early)
        found = {"early_mb": resident(agent), "early_api_mb": resident(api)}
        for begin in range(early, late, _CHUNK):
            _do(ground, contender, database, url, min(_CHUNK, late - begin))
        found |= {"late_mb": resident(agent), "late_api_mb": resident(api)}
        port = urlsplit(ground.database_url).port or 5432
        return found | {
            "agent_connections": sum(connections(agent, port)),
            "api_process_connections": max(connections(api, port)),
        }


def _while_many_wait(bench: Bench, contender: Chiffon) -> dict[str, float]:
    count = bench.sizes.memory_waiting
    with bench.stand.ground(contender.template) as ground, ground.database() as database:
        with contender.api(ground) as url:
            contender.dispatch(url, "noop", 1)
            api_before = resident(ground.running("api"))
            for begin in range(0, count, _CHUNK):
                contender.dispatch(url, "nap", min(_CHUNK, count - begin))
                ground.wait("confirmed", lambda: -waiting(database, "pending"), 0)
            api = resident(ground.running("api"))
        agent = contender.agent(ground)
        agent.launch()
        ground.wait("tasks run", ground.tally.count, 200)
        return {"api_before_mb": api_before, "api_mb": api, "agent_mb": resident(agent)}


def _do(ground: Ground, contender: Chiffon, database: Database, url: str, count: int) -> None:
    contender.dispatch(url, "noop", count)
    ground.wait("tasks settled", lambda: contender.ended(database, 0), 0, pause=0.5)


def resident(process: Process) -> float:
    """Return the resident memory of a program and what it started, in millions of bytes; shared pages count twice."""
    return float(sum(one.memory_info().rss for one in _family(process))) / 1e6


def connections(process: Process, port: int) -> list[int]:
    """Return, for a program and each process it started, how many connections it has to ``port``."""
    return [sum(bool(c.raddr) and c.raddr.port == port for c in one.net_connections("tcp")) for one in _family(process)]


def _family(process: Process) -> list[psutil.Process]:
    leader = psutil.Process(process.pid)
    return [leader, *leader.children(recursive=True)]
