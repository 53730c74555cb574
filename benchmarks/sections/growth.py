"""Growth: whether a ledger with millions of settled tasks is slower."""

from __future__ import annotations

import contextlib
import statistics
import time
import uuid
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import partial

from benchmarks.bench import Bench
from benchmarks.contenders import CHIFFON, CHIFFON_THROUGHPUT, Chiffon, Database, waiting
from benchmarks.options import PROCESSES
from benchmarks.rows import TABLES, multiply
from benchmarks.sections.drain import drain
from benchmarks.stand import LEDGER, Ground
from chiffon.config import validated_database_url
from chiffon.ledger import agents, claims
from chiffon.ledger.connect import open_session, session_transaction

NAME = "growth"

_COPIED = 100_000
"""Up to so many rows each round has a copy; beyond, what a round adds is too little to matter."""

_RETENTION = 14 * 86_400
"""Seconds: the copies are older, and what a round does is not."""

_CLAIMED = 100
"""Tasks in one claim."""


@dataclass(frozen=True)
class Rows:
    """What is no contender: the settled tasks themselves."""

    name: str = "settled-rows"


def run(bench: Bench) -> None:
    """Measure at each number of rows."""
    database_url = bench.stand.postgres.create_database(template=LEDGER)
    before = 0
    for rows in bench.sizes.growth:
        growing = partial(_grow, bench, database_url, before, rows)
        if not bench.measure(NAME, name_of(rows), Rows(), 1, growing):
            break
        before = rows
        for number, contender in bench.rounds(bench.chosen((CHIFFON, CHIFFON_THROUGHPUT))):
            measurement = partial(_round, bench, contender, database_url, rows)
            bench.measure(NAME, name_of(rows), contender, number, measurement)
    bench.stand.postgres.drop_database(database_url)


def name_of(rows: int) -> str:
    """How a number of rows is called."""
    for unit, letter in ((1_000_000, "M"), (1_000, "k")):
        if rows % unit == 0:
            return f"{rows // unit}{letter}"
    return str(rows)


def _round(bench: Bench, contender: Chiffon, database_url: str, rows: int) -> dict[str, float]:
    sizes = bench.sizes
    with _ground(bench, database_url, rows) as ground, ground.database() as database:
        found: dict[str, float] = {}
        with contender.api(ground) as url:
            environment = contender.environment(ground) | {"BENCH_API_KEY": contender.KEY}
            reading = ground.ask("reading", "benchmarks.apps.reading", url, "50", environment=environment)
            found |= {f"get_{name}_ms": median for name, median in reading.items()}
            for case, clients, batch in (("http16", 16, 1), ("batch500", 1, 500)):
                command = (url, str(clients), str(sizes.growth_dispatch[clients]), str(batch))
                dispatched = ground.ask(case, "benchmarks.apps.http_dispatch", *command, environment=environment)
                found[f"{case}_per_s"] = dispatched["count"] / dispatched["durable_s"]
        found["claim_ms"] = _claim(ground, database)
        _forget_unfinished(database)
    with _ground(bench, database_url, rows, together=PROCESSES) as ground:
        contender.fill(ground, "noop", sizes.growth_drain)
        found["drain_per_s"] = drain(ground, contender, sizes.growth_drain)["tasks_per_s"]
    return found | _forgetting(bench, replace(contender, retention=str(_RETENTION)), database_url, rows)


def _forgetting(bench: Bench, contender: Chiffon, database_url: str, rows: int) -> dict[str, float]:
    """The same drain while old tasks are forgotten: how fast, how long nothing was run, and how many went."""
    with _ground(bench, database_url, rows, together=PROCESSES) as ground, ground.database() as database:
        contender.fill(ground, "noop", bench.sizes.growth_drain)
        before = _known(database)
        found = drain(ground, contender, bench.sizes.growth_drain)
        return {
            "forgetting_drain_per_s": found["tasks_per_s"],
            "forgetting_pause_ms": found["pause_ms"],
            "forgotten": before - _known(database),
        }


def _known(database: Database) -> int:
    return int(database("SELECT count(*) FROM tasks")[0][0])


@contextlib.contextmanager
def _ground(bench: Bench, database_url: str, rows: int, *, together: int = 1) -> Iterator[Ground]:
    if rows > _COPIED:
        with bench.stand.ground_on(database_url, together=together) as ground:
            yield ground
    else:
        with bench.stand.ground(database_url.rpartition("/")[2], together=together) as ground:
            yield ground


def _grow(bench: Bench, database_url: str, before: int, rows: int) -> dict[str, float]:
    """Have ``rows`` settled tasks where there were ``before``; return how large it is then."""
    with bench.stand.ground_on(database_url) as ground, ground.database() as database:
        multiply(database, _settled(ground, database), before + 1, rows)
        return {"size_gb": database("SELECT pg_database_size(current_database())")[0][0] / 1e9}


def _settled(ground: Ground, database: Database) -> str:
    """Have one task done, with all that a caller can give it, and return its id."""
    task_id = str(uuid.uuid4())
    with CHIFFON.api(ground) as url:
        options = {"task_id": task_id, "request_id": task_id, "labels": {"customer": "7"}}
        CHIFFON.dispatch(url, "noop", 1, **options)
        agent = CHIFFON.agent(ground)
        agent.launch()
        ground.wait("tasks settled", lambda: CHIFFON.ended(database, 0), 0)
        ground.kill(agent)
    return task_id


def _claim(ground: Ground, database: Database) -> float:
    """Return how long it takes to claim a hundred tasks, in milliseconds, without the commit."""
    rows = database("SELECT task_id FROM tasks WHERE status = 'queued' ORDER BY task_id LIMIT %s", 20 * _CLAIMED)
    ids = [task_id for (task_id,) in rows]
    times = []
    with contextlib.closing(open_session(validated_database_url(ground.database_url), "claimer")) as session:
        with session_transaction(session) as cursor:
            incarnation = agents.register(
                cursor,
                agent_id="claimer",
                hostname="here",
                pid=1,
                slots=2,
                queues=["work_queue"],
                work_types=["noop"],
                version="0",
            )
        for begin in range(0, len(ids), _CLAIMED):
            offers = {task_id: str(uuid.uuid4()) for task_id in ids[begin : begin + _CLAIMED]}
            with session.cursor() as cursor:
                begun = time.monotonic()
                claims.claim(cursor, offers, incarnation=incarnation, agent_id="claimer")
                times.append((time.monotonic() - begun) * 1000)
            session.rollback()
        with session_transaction(session) as cursor:
            agents.leave(cursor, incarnation)
    return statistics.median(times)


def _forget_unfinished(database: Database) -> None:
    """Delete the tasks that nobody is to do: their messages go with the round's virtual host."""
    database(
        "CREATE TEMP TABLE unfinished AS SELECT task_id FROM tasks WHERE status = 'pending'"
        " UNION ALL SELECT task_id FROM tasks WHERE status = 'queued'"
    )
    for table in TABLES:
        if table != "request_keys":  # none of them has one
            database(f"DELETE FROM {table} t USING unfinished u WHERE t.task_id = u.task_id")
    assert waiting(database, "queued") == 0
