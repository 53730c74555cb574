"""What is written about tasks: rings, runs, ends, and births from messages."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from chiffon.agent import continuations
from chiffon.agent.life import Identity
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.reading import Direct
from chiffon.agent.rounds import Rounds
from chiffon.config import Settings
from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.replay import replay
from chiffon.domain.errors import WrongState
from chiffon.domain.states import State
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed, Failed
from chiffon.ledger import claims, condemn, retention, rings, sweeps
from chiffon.ledger.connect import Cursor, Ledger
from chiffon.ledger.expiry import START, Batch
from chiffon.ledger.settle import Recorded, Settlement, clear_debts, settle
from tests.bench import LEASE, MAX_CRASHES, TTL, Bench
from tests.builders import an_error, new_task
from tests.unanswered.write import Write, inside, refused

SETTINGS = Settings(database_url="postgresql://nobody@nowhere/none")
CALLBACKS = {"embed": {"errbacks": [{"task": "echo"}], "callbacks": [{"task": "echo"}]}}


# Ringing


def lease(bench: Bench) -> Write:
    task_id = bench.born()
    bench.pass_time(LEASE)

    def check() -> None:
        bench.pass_time(LEASE * 2)
        with bench.transaction() as cursor:
            (ring,) = rings.lease(cursor, limit=10, lease=LEASE)
        assert (ring.task_id, ring.ring_no) == (task_id, 3), "when the lease has run out somebody rings"

    return Write(inside(lambda c: rings.lease(c, limit=10, lease=LEASE)), [], check=check)


def confirm(bench: Bench) -> Write:
    task_id = bench.born()
    return Write(inside(lambda c: rings.confirm(c, [(task_id, 1)])), 0)


def due(bench: Bench) -> Write:
    bench.born(delay=1.0)
    bench.pass_time(2)
    return Write(inside(lambda c: sweeps.due(c, limit=10)), 0)


def lost(bench: Bench) -> Write:
    bench.task_in(State.QUEUED)
    bench.pass_time(10)
    options = {"queue": "work_queue", "priority": None, "rung_before": None, "older_than": 5.0, "limit": 10}
    return Write(inside(lambda c: sweeps.lost(c, **options)), 0)


# Running


def claim(bench: Bench) -> Write:
    agent, task_id, token = bench.agent(), bench.born(), "01234567-89ab-cdef-0123-456789abcdef"

    def offer(cursor: Cursor) -> Any:
        fates = claims.claim(cursor, {task_id: token}, incarnation=agent.incarnation, agent_id=agent.name)
        found = fates[task_id]
        return isinstance(found, Claim) and found.execution

    return Write(inside(offer), 1)


def mark_started(bench: Bench) -> Write:
    held = bench.claimed()
    return Write(inside(lambda c: claims.mark_started(c, {(held.task_id, held.execution): 0.5})))


def progress(bench: Bench) -> Write:
    held = bench.claimed()
    return Write(inside(lambda c: claims.record_progress(c, held.task_id, held.execution, '{"percent": 5}')), True)


def settle_done(bench: Bench) -> Write:
    return _settlement(bench, Completed("1"), "completed", owed=False)


def settle_failed(bench: Bench) -> Write:
    return _settlement(bench, Failed(an_error()), "failed", owed=True)


def _settlement(bench: Bench, verdict: Any, status: str, *, owed: bool) -> Write:
    held = bench.claimed(bench.born(canvas=CALLBACKS))
    settlement = Settlement(held.task_id, held.execution, verdict)

    def write(cursor: Cursor) -> Any:
        return settle(cursor, [settlement], ttl=TTL, max_crashes=MAX_CRASHES)[held.task_id, held.execution]

    return Write(inside(write), Recorded(status, owed, fresh=False))


class LifeOn:
    """The life of an agent, told to a ledger by whatever way the test wants."""

    def __init__(self, ledger: Ledger, incarnation: int) -> None:
        self.incarnation = incarnation
        self.identity = Identity("agent@bench", 4, ("work_queue",), ("echo",), "0")
        self.transaction, self.statements = ledger.transaction, ledger.statements

    def beat(self, queues: Sequence[str], slots: int) -> None:
        """Nobody need know: it is what comes of a heartbeat that is repeated here."""


def give_back_forgotten(bench: Bench) -> Write:
    held = bench.claimed()
    incarnation = bench.someone.incarnation

    def write(ledger: Ledger) -> None:
        rounds = Rounds(SETTINGS, LifeOn(ledger, incarnation), Mailbox(), set())  # type: ignore[arg-type]
        rounds.beat(draining=False)
        rounds.go(draining=False)

    def check() -> None:
        assert bench.outcomes(held.task_id) == ["given_back"]
        assert bench.row(held.task_id)["give_backs"] == 1

    return Write(write, check=check)


# Ending


def expire(bench: Bench) -> Write:
    bench.born(expires_in=1.0, canvas=CALLBACKS)
    bench.pass_time(2)
    return Write(inside(lambda c: sweeps.expire(c, limit=10, ttl=TTL)), [])


def take_over(bench: Bench) -> Write:
    agent = bench.agent()
    started, unstarted = bench.claimed(by=agent), bench.claimed(by=agent)
    bench.start(started)
    bench.lose(agent)

    def check() -> None:
        counts = [
            (bench.row(t)["agent_deaths"], bench.row(t)["give_backs"]) for t in (started.task_id, unstarted.task_id)
        ]
        assert counts == [(1, 0), (0, 1)]

    return Write(inside(lambda c: sweeps.take_over(c, agent.incarnation, ttl=TTL, max_deaths=9)), [], check=check)


def take_over_for_the_last_time(bench: Bench) -> Write:
    agent = bench.agent()
    bench.start(bench.claimed(bench.born(canvas=CALLBACKS), by=agent))
    bench.lose(agent)
    return Write(inside(lambda c: sweeps.take_over(c, agent.incarnation, ttl=TTL, max_deaths=1)), [])


def condemn_waiting(bench: Bench) -> Write:
    task_id = bench.born(canvas=CALLBACKS)
    return Write(inside(lambda c: condemn.condemn(c, task_id, an_error(), owed=True, ttl=TTL)), False)


def cancel_waiting(bench: Bench) -> Write:
    task_id = bench.born(canvas=CALLBACKS)
    return Write(lambda ledger: cancel(ledger, task_id, ttl=TTL), Cancelling.ENDED)


def ask_to_stop(bench: Bench) -> Write:
    held = bench.claimed()
    return Write(lambda ledger: cancel(ledger, held.task_id, ttl=TTL), Cancelling.ASKED)


def replay_failed(bench: Bench) -> Write:
    task_id = bench.task_in(State.FAILED)
    check = lambda: bench.history(task_id)  # noqa: E731
    return Write(refused(lambda ledger: replay(ledger, task_id, lease=LEASE)), WrongState, check=check)


def debts(bench: Bench) -> Write:
    task_id = bench.task_in(State.FAILED)
    bench.pass_time(20)

    def pay(cursor: Cursor) -> list[str]:
        return [ring.task_id for ring, *_ in sweeps.debts(cursor, limit=10, older=10, lease=LEASE)]

    def check() -> None:
        bench.pass_time(LEASE)
        with bench.transaction() as cursor:
            assert pay(cursor) == [task_id], "when the lease has run out somebody pays"

    return Write(inside(pay), [], check=check)


def clear_debt(bench: Bench) -> Write:
    task_id = bench.task_in(State.FAILED)
    return Write(inside(lambda c: clear_debts(c, [(task_id, 1)])))


def forget_tasks(bench: Bench) -> Write:
    bench.task_in(State.COMPLETED)
    owed = bench.task_in(State.FAILED)
    bench.pass_time(TTL + 100)
    young = bench.task_in(State.COMPLETED)

    def check() -> None:
        assert {task_id for (task_id,) in bench.sql("SELECT task_id FROM tasks")} == {owed, young}

    return Write(
        inside(lambda c: retention.forget_tasks(c, age=50, limit=10, after=START)), Batch(0, START), check=check
    )


# What comes from messages


def bear(bench: Bench) -> Write:
    return _birth(Direct(new_task(origin="message")))


def bear_anonymous(bench: Bench) -> Write:
    # Its ring is the caller's only once; the second time it is claimed at once, as any other.
    return _birth(Direct(new_task(origin="message"), anonymous=True))


def follow(bench: Bench) -> Write:
    bench.born(request_id="the same")
    return _birth(Direct(new_task(origin="message", request_id="the same")))


def follow_what_has_ended(bench: Bench) -> Write:
    bench.task_in(State.COMPLETED, request_id="the same")
    return _birth(Direct(new_task(origin="message", request_id="the same", canvas=CALLBACKS)))


def _birth(delivery: Direct) -> Write:
    return Write(inside(lambda c: continuations.bear(c, [delivery], SETTINGS)), ({}, {}))


def bear_condemned(bench: Bench) -> Write:
    task = new_task(origin="message", canvas=CALLBACKS, delay=60.0)

    def check() -> None:
        assert bench.status(task.task_id) == "dead_lettered", "at once, whenever it was to run"

    return Write(inside(lambda c: continuations.bear_condemned(c, task, "nobody can run it", SETTINGS)), check=check)


WRITES: list[Callable[[Bench], Write]] = [
    lease, confirm, due, lost,
    claim, mark_started, progress, settle_done, settle_failed, give_back_forgotten,
    expire, take_over, take_over_for_the_last_time, condemn_waiting, cancel_waiting, ask_to_stop, replay_failed,
    debts, clear_debt, forget_tasks,
    bear, bear_anonymous, follow, follow_what_has_ended, bear_condemned,
]  # fmt: skip
