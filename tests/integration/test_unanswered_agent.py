"""An agent, a client and a ringer that do not hear that they were heard: what they do next, and what came of it."""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import psycopg2
import pytest

from chiffon import work
from chiffon.agent.claiming import Claimer
from chiffon.agent.commands import Finished, Offer
from chiffon.agent.life import Identity, Life
from chiffon.agent.reading import Doorbell, Reader
from chiffon.agent.run import ChordPart, Draft, Report
from chiffon.agent.settling import Settler
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.submit import submit, submit_all
from chiffon.domain import ids
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Accepted, Claim, Ring
from chiffon.domain.verdicts import Completed
from chiffon.domain.work import WorkTypes, registry
from chiffon.ledger import sweeps
from chiffon.ledger.connect import open_session
from chiffon.ledger.settle import Recorded, Settlement
from tests.bench import LEASE, TTL
from tests.builders import new_task
from tests.chaos.relay import STATEMENTS
from tests.doubt import Doubt
from tests.racing import until

LOCKS = "SELECT count(*) FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND granted"


class Silent(Ringer):
    """A ringer that only remembers what it was to ring for."""

    def __init__(self) -> None:
        self.rung: list[str] = []

    def ring(self, rings: object) -> None:
        """Remember."""
        assert isinstance(rings, list | tuple | type({}.values()))
        self.rung += [ring.task_id for ring in rings if isinstance(ring, Ring)]


@pytest.fixture
def settings(doubt: Doubt) -> Settings:
    return Settings(database_url=doubt.url)


@pytest.fixture
def life(doubt: Doubt) -> Iterator[Life]:
    """An agent's life, on the unsafe way; not yet begun."""
    found = Life(doubt.url, Identity("agent@doubt", 2, ("work_queue",), ("echo",), "0"))
    yield found
    found.drop()


@pytest.fixture
def reader() -> Reader:
    return Reader(registry, {"echo": None}, 1_000_000)


def begin_again(life: Life) -> set[tuple[str, int]]:
    """As the clerk does: until the old session's lock is free."""

    def begun() -> list[set[tuple[str, int]]]:
        try:
            return [life.begin()]
        except LedgerUnavailable:
            return []

    return until(begun)[0]


def claimed(life: Life, doubt: Doubt, settings: Settings, reader: Reader) -> tuple[str, Claim]:
    """A task that this life has claimed."""
    offer = Offer(Doorbell(doubt.bench.born()), lambda fate: None)
    ((_, fate),) = Claimer(settings, life, reader, Silent()).claim([offer])
    assert isinstance(fate, Claim)
    return offer.task_id, fate


def test_a_rejoining_that_was_not_answered_is_done_again_and_keeps_the_work(
    doubt: Doubt, life: Life, settings: Settings, reader: Reader
) -> None:
    life.begin()
    task_id, claim = claimed(life, doubt, settings, reader)
    life.drop()
    doubt.unanswered(life.begin, STATEMENTS["rejoin"])
    assert not life.alive
    assert begin_again(life) == {(task_id, claim.execution)}
    assert doubt.bench.sql("SELECT incarnation, stopped_at FROM agents") == [(life.incarnation, None)]
    assert doubt.bench.sql(LOCKS, sweeps.LOCK_CLASS) == [(1,)]


def test_a_heartbeat_that_was_not_answered_costs_the_session_and_nothing_else(
    doubt: Doubt, life: Life, settings: Settings, reader: Reader
) -> None:
    life.begin()
    task_id, claim = claimed(life, doubt, settings, reader)
    steps = ((lambda: life.beat(["work_queue"], 2), b"SET last_heartbeat_at"), (life.drain, b"SET draining_at"))
    for step, statement in steps:
        doubt.unanswered(step, statement)
        assert not life.alive
        assert begin_again(life) == {(task_id, claim.execution)}
        step()
    assert doubt.bench.sql("SELECT count(*) FROM agents") == [(1,)]
    assert doubt.bench.outcomes(task_id) == [None]


def test_a_goodbye_that_was_not_answered_has_been_said_once(
    doubt: Doubt, life: Life, settings: Settings, reader: Reader
) -> None:
    life.begin()
    task_id, _ = claimed(life, doubt, settings, reader)
    doubt.unanswered(lambda: life.end(ttl=TTL, max_deaths=9))
    assert life.incarnation is not None
    assert doubt.bench.take_over(life.incarnation) == [], "there is nothing left for a sweeper to free"
    assert doubt.bench.outcomes(task_id) == ["agent_lost"]
    assert doubt.bench.history(task_id) == ["pending", "running", "pending"]
    assert doubt.bench.sql("SELECT count(*) FROM agents WHERE stopped_at IS NOT NULL") == [(1,)]


def test_a_claim_that_was_not_answered_is_found_by_its_token(
    doubt: Doubt, life: Life, settings: Settings, reader: Reader
) -> None:
    life.begin()
    offers = [Offer(Doorbell(doubt.bench.born()), lambda fate: None) for _ in range(3)]
    claimer = Claimer(settings, life, reader, Silent())
    doubt.unanswered(lambda: claimer.claim(offers), STATEMENTS["claim"])
    held = begin_again(life)
    assert held == {(offer.task_id, 1) for offer in offers}
    fates = [fate for _, fate in claimer.claim(offers)]
    assert [isinstance(fate, Claim) and fate.execution for fate in fates] == [1, 1, 1]
    assert [doubt.bench.outcomes(offer.task_id) for offer in offers] == [[None]] * 3


def test_what_an_end_sets_off_is_written_once_though_nobody_answered(
    doubt: Doubt, life: Life, settings: Settings, reader: Reader
) -> None:
    life.begin()
    task_id, claim = claimed(life, doubt, settings, reader)
    following = ids.new_task_id()
    draft = Draft({"id": following, "task": "echo"}, [], {"input": 1}, {}, 3, "work_queue")
    part = ChordPart("g", task_id, "SUCCESS", {"task": "echo", "options": {}}, 1)
    report = Report(Completed("1"), drafts=[draft], chord_parts=[part])
    settlement = Settlement(task_id, claim.execution, Completed("1"), ran_for=0.1, caught=True)
    finished = Finished(settlement, report, claim.trace_id, lambda answer: None)
    ringer = Silent()
    settler = Settler(settings, life, reader, ringer)

    doubt.unanswered(lambda: settler.settle([finished]), STATEMENTS["settle"])
    once = doubt.everything(["last_heartbeat_at", "backend_pid"])
    assert begin_again(life) == set()
    ((_, answer),) = settler.settle([finished])

    assert answer == Recorded("completed", owes_dead_letter=False, fresh=False)
    assert doubt.everything(["last_heartbeat_at", "backend_pid"]) == once
    released = ids.derived_id("chord", "g")
    born = doubt.bench.sql("SELECT task_id, status FROM tasks WHERE task_id <> %s ORDER BY origin, work_type", task_id)
    assert sorted(born) == sorted([(following, "pending"), (released, "pending")])
    assert ringer.rung == [], "nobody knows that these are the caller's to ring: a sweeper does, when the lease is over"
    doubt.bench.pass_time(settings.ring_lease)
    assert doubt.bench.sql("SELECT count(*) FROM tasks WHERE next_ring_at < clock_timestamp()") == [(2,)]


def test_an_acceptance_that_was_not_answered_is_looked_up_and_says_accepted(doubt: Doubt) -> None:
    tasks = [new_task() for _ in range(3)]
    doubt.lose_next(STATEMENTS["accept"])
    fates, rings = submit_all(doubt.ledger, tasks, lease=LEASE)
    assert fates == [Accepted(task.task_id) for task in tasks]
    assert rings == [], "whether they were rung nobody knows: a sweeper does"
    assert doubt.bench.sql("SELECT count(*), max(ring_no) FROM tasks") == [(3, 1)]


def test_work_submitted_in_a_transaction_that_was_not_answered_is_the_same_when_it_is_submitted_again(
    doubt: Doubt, monkeypatch: pytest.MonkeyPatch
) -> None:
    types = WorkTypes()
    work("shop.order", into=types)(lambda number: number)
    monkeypatch.setattr(registry, "_types", {kind.name: kind for kind in types})
    order = {"work_type": "shop.order", "parameters": {"number": 1}, "request_id": "order 1"}
    session = open_session(doubt.url, "the shop")
    doubt.lose_next(STATEMENTS["accept"])
    with pytest.raises(psycopg2.OperationalError), session:
        submit(session, **order)
    ((first,),) = doubt.bench.sql("SELECT task_id FROM tasks")
    with contextlib.closing(open_session(doubt.bench.url, "the shop, again")) as session, session:
        assert submit(session, **order) == first
    assert doubt.bench.sql("SELECT count(*) FROM tasks") == [(1,)]
    assert doubt.bench.history(first) == ["pending"]


def test_a_registration_that_was_not_answered_leaves_one_life(doubt: Doubt, life: Life) -> None:
    doubt.unanswered(life.begin, STATEMENTS["register"])
    assert begin_again(life) == set()
    life.beat(["work_queue"], 2)
    living = doubt.bench.sql("SELECT incarnation FROM agents WHERE stopped_at IS NULL")
    assert (life.incarnation,) in living
    assert doubt.bench.sql(LOCKS, sweeps.LOCK_CLASS) == [(1,)]
