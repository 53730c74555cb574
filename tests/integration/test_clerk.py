"""The clerk over a real ledger: a row that somebody holds is tried again, and holds up nobody else."""

from __future__ import annotations

import contextlib
import threading
import time
import uuid
from collections.abc import Callable, Iterator
from typing import Any

import pytest

from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Condemned, Finished, Offer, Started
from chiffon.agent.life import Identity, Life
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.offers import DEFER
from chiffon.agent.reading import Doorbell, Reader
from chiffon.agent.run import Report
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Claim, NotDue
from chiffon.domain.verdicts import Completed
from chiffon.domain.work import registry
from chiffon.ledger import claims
from chiffon.ledger.connect import open_session
from chiffon.ledger.settle import Settlement
from tests.bench import Bench
from tests.builders import new_task
from tests.doubt import Doubt
from tests.racing import PATIENCE, until

HEARTBEAT = 1
MARK_AFTER = 0.1

LAG = 0.2
"""Seconds that everything takes on a slow link, each way."""

WAITS = """SELECT xact_start FROM pg_stat_activity
            WHERE application_name LIKE 'chiffon agent clerk%%' AND wait_event_type = 'Lock'"""

ROUND_TRIPS = 6
"""Those after which a heartbeat that is due must have come. All that a busy clerk does in a round is more."""


class Desk:
    """A clerk with its mailbox, and what has come out of it."""

    def __init__(self, bench: Bench, url: str) -> None:
        self.bench = bench
        settings = Settings(database_url=bench.url, heartbeat_seconds=HEARTBEAT)
        self.mailbox = Mailbox()
        self.life = Life(url, Identity("clerk", 4, ("work_queue",), ("echo",), "0"))
        self.ringer = Ringer(settings, bench.ledger, registry.queues, name="test")
        reader = Reader(registry, {"echo": None}, 1_000)
        self.clerk = Clerk(settings, self.life, reader, self.ringer, self.mailbox, mark_after=MARK_AFTER)
        self.fates: dict[str, Any] = {}

    def offer(self, task_id: str) -> None:
        """Say that a doorbell has come."""
        self.clerk.tell(Offer(Doorbell(task_id), lambda fate: self.fates.update({task_id: fate})))

    def run(self, claim: Claim) -> None:
        """Say that a run has begun, and that it has come to its end."""
        self.clerk.tell(Started(claim.task_id, claim.execution, time.monotonic() - MARK_AFTER))
        self.finish(claim)

    def finish(self, claim: Claim) -> None:
        """Say that a run has come to its end."""
        settlement = Settlement(claim.task_id, claim.execution, Completed("1"))
        answer: Callable[[Any], None] = lambda found: self.fates.update({claim.task_id: found})  # noqa: E731
        self.clerk.tell(Finished(settlement, Report(settlement.verdict), claim.trace_id, answer))

    def hear(self, *task_ids: str) -> list[Any]:
        """What the clerk has said of these tasks."""

        def has_been_said() -> bool:
            self.mailbox.open()
            return self.fates.keys() >= set(task_ids)

        until(has_been_said)
        return [self.fates[task_id] for task_id in task_ids]

    def claimed(self, task_id: str) -> Claim:
        """Have a task claimed."""
        self.offer(task_id)
        [claim] = self.hear(task_id)
        assert isinstance(claim, Claim)
        del self.fates[task_id]
        return claim

    def heartbeat(self) -> Any:
        """When the agent said last that it lives."""
        return self.bench.sql("SELECT last_heartbeat_at FROM agents WHERE agent_id = 'clerk'")[0][0]

    def has_lived_on(self, since: Any, seconds: float = 0.0) -> bool:
        """Let the clerk be heard, and tell whether the agent has said that it lives so long after a moment."""
        self.mailbox.open()
        return bool((self.heartbeat() - since).total_seconds() > seconds)


@contextlib.contextmanager
def opened(desk: Desk) -> Iterator[Desk]:
    """A desk at which a clerk sits."""
    desk.clerk.start()
    yield desk
    assert desk.clerk.stop(PATIENCE)


@pytest.fixture
def desk(bench: Bench) -> Iterator[Desk]:
    with opened(Desk(bench, bench.url)) as lent:
        yield lent


@contextlib.contextmanager
def held(bench: Bench, *task_ids: str, agent: str = "") -> Iterator[Callable[[], None]]:
    """Rows that somebody holds, of tasks and of an agent, and how they are let go of."""
    session = open_session(bench.url, "holder")
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute("SELECT FROM tasks WHERE task_id = ANY(%s) FOR UPDATE", (list(task_ids),))
        cursor.execute("SELECT FROM agents WHERE agent_id = %s FOR UPDATE", (agent,))
        yield session.rollback


def test_an_agent_that_has_lost_its_session_is_back_before_it_is_taken_for_dead_though_the_first_tries_fail(
    desk: Desk, monkeypatch: pytest.MonkeyPatch
) -> None:
    desk.claimed(desk.bench.born())
    begin, tries = desk.life.begin, list[float]()

    def fail_twice() -> set[tuple[str, int]]:
        tries.append(time.monotonic())
        if len(tries) < 3:
            raise LedgerUnavailable("the answer was lost")
        return begin()

    monkeypatch.setattr(desk.life, "begin", fail_twice)
    assert desk.life._session is not None
    desk.life._session.close()
    lost_at = time.monotonic()
    assert until(lambda: len(tries) == 3 and desk.life.alive)
    assert tries[-1] - lost_at < Settings().takeover_grace


def test_rows_that_somebody_holds_keep_neither_a_heartbeat_nor_another_task_waiting(bench: Bench, desk: Desk) -> None:
    ended, waiting, free = bench.born(), bench.born(), bench.born()
    run = desk.claimed(ended)
    with held(bench, ended, waiting) as let_go:
        desk.finish(run)
        desk.offer(waiting)
        desk.clerk.tell(Condemned(new_task(task_id=waiting), "nobody can run it"))
        before = desk.heartbeat()
        desk.offer(free)
        [claim] = desk.hear(free)
        assert isinstance(claim, Claim)
        [fate] = desk.hear(waiting)
        assert isinstance(fate, NotDue)  # it has been tried twice, a while apart
        assert desk.has_lived_on(before, DEFER)
        assert ended not in desk.fates
        let_go()
        [answer] = desk.hear(ended)
    assert answer.status == "completed"
    del desk.fates[waiting]
    desk.offer(waiting)
    [claim] = desk.hear(waiting)
    assert isinstance(claim, Claim)


def test_an_agent_that_ends_says_goodbye_although_somebody_holds_its_row_for_a_while(bench: Bench, desk: Desk) -> None:
    task_id = bench.born()
    desk.claimed(task_id)
    with held(bench, agent="clerk") as let_go:
        ends = threading.Thread(target=desk.clerk.stop, args=[PATIENCE], daemon=True)
        ends.start()
        [first] = until(lambda: bench.sql(WAITS))
        until(lambda: set(bench.sql(WAITS)) - {first})  # it has lost the first
        let_go()
        ends.join()
    assert bench.sql("SELECT stopped_at IS NOT NULL FROM agents WHERE agent_id = 'clerk'") == [(True,)]
    assert bench.sql("SELECT status FROM tasks WHERE task_id = %s", task_id) == [("pending",)]


def test_over_a_slow_link_an_agent_with_much_to_do_still_says_in_time_that_it_lives(bench: Bench, doubt: Doubt) -> None:
    with opened(Desk(bench, doubt.url)) as desk:
        desk.run(desk.claimed(bench.born()))
        doubt.slow_down(LAG)
        began, silences = desk.heartbeat(), []

        def has_had_much_to_do() -> bool:
            desk.offer(bench.born())
            long_enough = desk.has_lived_on(began, 20 * 2 * LAG)
            for claim in [fate for fate in desk.fates.values() if isinstance(fate, Claim)]:
                del desk.fates[claim.task_id]
                desk.run(claim)
            silences.append(bench.sql("SELECT extract(epoch FROM clock_timestamp() - last_heartbeat_at) FROM agents"))
            return long_enough

        until(has_had_much_to_do)
        doubt.slow_down(0)
    longest = max(float(silence) for [[silence]] in silences)
    assert longest < HEARTBEAT + ROUND_TRIPS * 2 * LAG, f"it said nothing for {longest:.1f} s"


def test_at_a_heartbeat_an_agent_gives_back_what_it_does_not_know_that_it_runs(bench: Bench, desk: Desk) -> None:
    known, forgotten = desk.claimed(bench.born()), bench.born()
    with bench.transaction() as cursor:  # as if the claim's answer were lost, and nobody had asked again
        claims.claim(cursor, {forgotten: str(uuid.uuid4())}, incarnation=desk.life.incarnation, agent_id="clerk")
    assert bench.status(forgotten) == "running"
    claimed_at = desk.heartbeat()
    until(lambda: desk.has_lived_on(claimed_at) and bench.outcomes(forgotten) == ["given_back"])
    given_back_at = desk.heartbeat()
    until(lambda: desk.has_lived_on(given_back_at))  # the round in which it was given back is over
    row = bench.row(forgotten)
    assert (row["status"], row["give_backs"], row["crashes"], row["agent_deaths"]) == ("pending", 1, 0, 0)
    assert bench.status(known.task_id) == "running"
    assert bench.outcomes(known.task_id) == [None]
