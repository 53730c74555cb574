"""The sweeper, with a real ledger and somebody who only notes what is rung."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing, contextmanager
from typing import Any

import amqp
import pytest

from chiffon.config import Settings
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.dispatch import sweep
from chiffon.dispatch.lost import Suspicion, ask_ready
from chiffon.dispatch.ring import BACKLOG, Debt, Ringer
from chiffon.dispatch.submit import first_ring
from chiffon.dispatch.sweep import BATCH, Sweeper
from chiffon.domain.states import State
from chiffon.domain.tasks import Ring
from chiffon.ledger import agents
from chiffon.ledger.connect import open_session, session_transaction
from chiffon.ledger.follow import follow
from tests.bells import bare_channel
from tests.bench import Bench
from tests.builders import new_task
from tests.log_notes import LogNotes
from tests.racing import until

AWAY = "amqp://127.0.0.1:1//"


class Notes:
    """Rings nothing, and notes what it was given; as a ringer does, it may have no way to the broker."""

    def __init__(self) -> None:
        self.connected = True
        self.free = BATCH
        self._lock = threading.Lock()
        self._given: list[Ring | Debt] = []

    def ring(self, rings: Iterable[Ring | Debt]) -> None:
        """Note these."""
        with self._lock:
            self._given.extend(rings)

    def ready(self) -> bool:
        """Whether there is a way to the broker."""
        return self.connected

    def room(self) -> int:
        """How many more it can take."""
        return self.free

    def rung(self) -> list[str]:
        """The tasks that were rung for."""
        with self._lock:
            return [item.task_id for item in self._given if isinstance(item, Ring)]

    def paid(self) -> set[tuple[str, str]]:
        """The dead letters that were owed, with their reasons."""
        with self._lock:
            return {(item.ring.task_id, item.reason) for item in self._given if isinstance(item, Debt)}


@pytest.fixture
def notes() -> Notes:
    return Notes()


def sweeper(bench: Bench, notes: Notes, *suspicions: Suspicion, grace: float = 1.0) -> Sweeper:
    """A sweeper in a hurry."""
    settings = Settings(database_url=bench.url, sweep_seconds=0.05, takeover_grace=grace)
    return Sweeper(settings, notes, name="test", suspicions=lambda: suspicions)  # type: ignore[arg-type]


@pytest.fixture
def sweeping(bench: Bench, notes: Notes) -> Iterator[Sweeper]:
    running = sweeper(bench, notes)
    running.start()
    yield running
    running.stop()


@pytest.mark.usefixtures("sweeping")
def test_what_nobody_rang_for_is_rung_when_its_lease_is_over(bench: Bench, notes: Notes) -> None:
    fresh, stale = bench.born(), bench.born()
    bench.sql("UPDATE tasks SET next_ring_at = clock_timestamp() WHERE task_id = %s", stale)
    until(lambda: stale in notes.rung())
    assert fresh not in notes.rung()
    assert notes.rung().count(stale) == 1


@pytest.mark.usefixtures("sweeping")
def test_scheduled_work_is_rung_when_it_is_due(bench: Bench, notes: Notes) -> None:
    task_id = bench.born(delay=0.2)
    until(lambda: notes.rung() == [task_id])
    assert bench.history(task_id) == ["scheduled", "pending"]


def test_what_becomes_due_right_after_a_round_is_rung_within_the_time_that_was_set(bench: Bench, notes: Notes) -> None:
    within = 6.0
    running = Sweeper(Settings(database_url=bench.url, sweep_seconds=within), notes, name="test")  # type: ignore[arg-type]
    before = bench.born()
    bench.pass_time(60)
    running.start()
    until(lambda: notes.rung() == [before])
    began = time.monotonic()
    due = bench.born(delay=0.05)
    until(lambda: due in notes.rung())
    assert time.monotonic() - began < within - 1.0
    running.stop()


@pytest.mark.usefixtures("sweeping")
def test_work_that_nobody_wants_any_more_ends(bench: Bench, notes: Notes) -> None:
    task_id = bench.born(expires_in=0.2)
    until(lambda: bench.status(task_id) == "expired")
    assert notes.rung() == []


@pytest.mark.usefixtures("sweeping")
def test_the_work_of_an_agent_that_died_is_rung_for_others(bench: Bench, notes: Notes) -> None:
    living, dying = bench.agent("living"), bench.agent("dying")
    kept, lost = bench.claimed(by=living), bench.claimed(by=dying)
    dying.die()
    until(lambda: notes.rung() == [lost.task_id], patience=5)
    assert bench.status(kept.task_id) == "running"


def test_who_could_not_take_its_lock_while_postgres_hung_has_a_moment_for_it_once_that_goes_on(
    bench: Bench, notes: Notes, postgres: PrivatePostgres
) -> None:
    agent = bench.agent("living")
    claim = bench.claimed(by=agent)
    agent.die()  # its session broke
    running = sweeper(bench, notes, grace=4.0)
    running.start()
    until(lambda: agent.incarnation in running._deaths._seen_for)
    postgres.pause()
    began = time.monotonic()
    until(lambda: time.monotonic() - began > 5.0)
    postgres.resume()
    resumed = time.monotonic()
    until(lambda: running._deaths._looked_at > resumed)  # it has seen the lock free, before and after
    agent.session = open_session(bench.url, "agent again")
    with session_transaction(agent.session) as cursor:
        assert agents.lock(cursor, agent.incarnation)
        assert agents.rejoin(cursor, agent.incarnation) == {(claim.task_id, 1)}
    until(lambda: agent.incarnation not in running._deaths._seen_for)
    assert bench.status(claim.task_id) == "running"
    running.stop()


def test_after_postgres_was_silent_for_long_an_agent_has_a_moment_to_say_that_it_lives(
    bench: Bench, notes: Notes
) -> None:
    living, hung = bench.agent("living"), bench.agent("hung")
    kept, lost = bench.claimed(by=living), bench.claimed(by=hung)
    bench.pass_time(200)  # nobody's heartbeat has arrived
    running = sweeper(bench, notes)
    running.start()
    until(lambda: living.incarnation in running._mutes._seen_for)  # it has seen that it is mute
    with session_transaction(living.session) as cursor:
        agents.beat(cursor, living.incarnation, queues=["work_queue"], slots=4)
    until(lambda: lost.task_id in notes.rung(), patience=10)
    assert bench.status(kept.task_id) == "running"
    bench.claimed(by=living)  # its session is there
    running.stop()


def test_an_agent_does_not_take_its_own_work_for_that_of_a_dead_one(bench: Bench, notes: Notes) -> None:
    own, dead = bench.agent("own"), bench.agent("dead")
    kept, lost = bench.claimed(by=own), bench.claimed(by=dead)
    settings = Settings(database_url=bench.url, sweep_seconds=0.05, takeover_grace=0.5)
    running = Sweeper(settings, notes, name="own", mine=lambda: own.incarnation)  # type: ignore[arg-type]
    running.start()
    own.die()  # no more than its session, and before the other
    dead.die()
    until(lambda: notes.rung() == [lost.task_id], patience=5)
    running.stop()
    assert bench.status(kept.task_id) == "running"


@pytest.mark.usefixtures("sweeping")
def test_a_mute_agent_is_cut_off_and_its_work_rung_for_others(bench: Bench, notes: Notes) -> None:
    mute = bench.claimed()
    bench.pass_time(181)
    until(lambda: notes.rung() == [mute.task_id])


def test_a_message_that_must_have_been_lost_is_rung_again(bench: Bench, notes: Notes) -> None:
    lost = bench.task_in(State.QUEUED)
    bench.pass_time(60)
    fresh = bench.task_in(State.QUEUED)
    running = sweeper(bench, notes, Suspicion("work_queue", None, None, older_than=30.0))
    running.start()
    until(lambda: notes.rung() == [lost])
    running.stop()
    assert bench.status(fresh) == "queued"


def test_what_an_empty_queue_should_have_is_rung_again_though_no_agent_is_without_work(
    bench: Bench, notes: Notes
) -> None:
    bench.agent("busy", queues=["work_queue", "work_queue.b", "work_queue.c"])
    queued = {queue: bench.task_in(State.QUEUED, queue=queue) for queue in ("work_queue", "work_queue.b")}
    bench.pass_time(60)
    fresh = bench.task_in(State.QUEUED, queue="work_queue.c")
    asked: list[set[str]] = []

    def ready(_: Settings, queues: Sequence[str]) -> dict[str, int]:
        asked.append(set(queues))
        return {"work_queue": 7, "work_queue.b": 0}

    settings = Settings(database_url=bench.url, sweep_seconds=0.05, lost_after=2.0)
    running = Sweeper(settings, notes, name="test", ready=ready)  # type: ignore[arg-type]
    running.start()
    until(lambda: notes.rung() == [queued["work_queue.b"]])
    running.stop()
    assert len(asked) >= 4
    assert asked[0] == set(queued)
    assert (bench.status(queued["work_queue"]), bench.status(fresh)) == ("queued", "queued")


def test_the_broker_says_what_is_ready_in_each_queue(broker_url: str) -> None:
    settings = Settings(broker_url=broker_url)
    with bare_channel(broker_url) as channel:
        channel.queue_declare("work_queue.b")
        channel.basic_publish(amqp.Message("x"), routing_key="work_queue.b")
        asked = ["work_queue.b", "work_queue.gone"]
        until(lambda: ask_ready(settings, asked) == {"work_queue.b": 1, "work_queue.gone": 0})


@pytest.mark.usefixtures("sweeping")
def test_a_dead_letter_that_its_holder_did_not_pay_is_paid(bench: Bench, notes: Notes) -> None:
    failed = bench.task_in(State.FAILED)
    bench.pass_time(11)
    until(lambda: notes.paid() == {(failed, "it broke")})


def test_nothing_is_leased_while_the_broker_cannot_be_reached(bench: Bench, notes: Notes) -> None:
    notes.connected = False
    task_id = bench.born()
    due = bench.born(delay=0.1)
    bench.pass_time(60)
    running = sweeper(bench, notes)
    running.start()
    until(lambda: bench.status(due) == "pending")
    assert (notes.rung(), bench.row(task_id)["ring_no"]) == ([], 1)
    notes.connected = True
    until(lambda: sorted(notes.rung()) == sorted([task_id, due]))
    running.stop()


def test_no_more_is_leased_than_the_ringer_has_room_for(bench: Bench, notes: Notes) -> None:
    notes.free = 0
    tasks, due = [bench.born() for _ in range(3)], bench.born(delay=0.1)
    failed = bench.task_in(State.FAILED)
    bench.pass_time(60)
    running = sweeper(bench, notes)
    running.start()
    until(lambda: bench.status(due) == "pending")
    assert (notes.rung(), notes.paid()) == ([], set())
    assert [bench.row(task_id)["ring_no"] for task_id in tasks] == [1, 1, 1]
    notes.free = 2
    until(lambda: set(notes.rung()) == {*tasks, due} and len(notes.paid()) == 1)
    assert notes.paid() == {(failed, "it broke")}
    running.stop()


def test_the_ringer_has_room_for_what_it_can_publish_in_a_moment(bench: Bench) -> None:
    ringer = Ringer(Settings(database_url=bench.url, broker_url=AWAY), bench.ledger)
    assert ringer.room() == BACKLOG
    bells = [first_ring(new_task()) for _ in range(10)]
    ringer.ring(bells * (BACKLOG // 5))  # all but those that are with the broker, which does not answer
    assert ringer.room() == 0
    ringer.stop()


@pytest.mark.usefixtures("sweeping")
def test_it_goes_on_after_an_outage_of_the_ledger(bench: Bench, notes: Notes, postgres: PrivatePostgres) -> None:
    bench.sql("SELECT 1")
    postgres.stop()
    postgres.start()
    task_id = bench.born()
    bench.pass_time(60)
    until(lambda: notes.rung() == [task_id])


@pytest.mark.usefixtures("sweeping")
def test_a_restart_of_the_ledger_buries_no_agent_that_comes_back(
    bench: Bench, notes: Notes, postgres: PrivatePostgres
) -> None:
    agent = bench.agent("living")
    claim = bench.claimed(by=agent)
    postgres.restart()
    agent.session = open_session(bench.url, "living again")
    with session_transaction(agent.session) as cursor:
        assert agents.lock(cursor, agent.incarnation)
    dying = bench.agent("dying")
    witness = bench.claimed(by=dying)
    bench.lose(dying)
    until(lambda: notes.rung() == [witness.task_id])  # by now the living one would have been buried too
    assert bench.status(claim.task_id) == "running"


def test_each_task_that_is_taken_over_is_named_with_its_ids(
    bench: Bench, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogNotes()
    monkeypatch.setattr(sweep, "log", log)
    dying = bench.agent("dying")
    claims = [bench.claimed(by=dying), bench.claimed(by=dying)]
    bench.lose(dying)
    running = sweeper(bench, notes)
    running.start()
    until(lambda: len(log.said("task_taken_over")) == 2)
    running.stop()
    named = {(line["task_id"], line["request_id"], line["trace_id"]) for line in log.said("task_taken_over")}
    assert named == {(claim.task_id, claim.request_id, claim.trace_id) for claim in claims}


@contextmanager
def holding(bench: Bench, statement: str, *values: Any) -> Iterator[None]:
    """Somebody who has locked what ``statement`` selects, and does not go on."""
    session = open_session(bench.url, "holder")
    with closing(session), session_transaction(session) as cursor:
        cursor.execute(f"{statement} FOR UPDATE", values)
        assert cursor.fetchall()
        yield


@pytest.mark.parametrize("held", ["task", "follower", "key"])
def test_a_row_that_somebody_holds_holds_up_nobody_else(bench: Bench, notes: Notes, held: str) -> None:
    """The row is a dead agent's, and one that is past its time: the rest of the agent's work goes on, and all else."""
    dying = bench.agent("dying")
    lost, expired, free = bench.born(request_id="lost"), bench.born(request_id="late"), bench.born()
    for task_id in (lost, free):
        bench.claimed(task_id, by=dying)
    bench.sql("UPDATE tasks SET cancel_requested_at = clock_timestamp() WHERE task_id = %s", lost)
    with bench.transaction() as cursor:
        followers = [new_task(request_id=key) for key in ("lost", "late")]
        for follower, first in zip(followers, (lost, expired), strict=True):
            follow(cursor, follower, first)
    statement = {
        "task": ("SELECT 1 FROM tasks WHERE task_id = ANY(%s)", [lost, expired]),
        "follower": ("SELECT 1 FROM tasks WHERE task_id = ANY(%s)", [follower.task_id for follower in followers]),
        "key": ("SELECT 1 FROM request_keys WHERE request_id = ANY(%s)", ["lost", "late"]),
    }[held]
    bench.sql("UPDATE tasks SET expires_at = clock_timestamp() WHERE task_id = %s", expired)
    dying.die()
    running = sweeper(bench, notes)
    with holding(bench, *statement):
        running.start()
        until(lambda: free in notes.rung())
        began = time.monotonic()
        due, late = bench.born(delay=0.1), bench.born(expires_in=0.1)
        until(lambda: due in notes.rung() and bench.status(late) == "expired")
        assert time.monotonic() - began < 2
        assert (bench.status(lost), bench.status(expired)) == ("running", "pending")
    until(lambda: (bench.status(lost), bench.status(expired)) == ("cancelled", "expired"))
    running.stop()
    assert [bench.status(follower.task_id) for follower in followers] == ["cancelled", "expired"]


@pytest.mark.usefixtures("sweeping")
def test_a_step_that_has_to_wait_does_not_stop_the_others(bench: Bench, notes: Notes) -> None:
    """A held result is found only when the end is written: that step loses its race, round after round."""
    late = bench.born()
    bench.sql("INSERT INTO results (task_id, status) VALUES (%s, 'STARTED')", late)
    with holding(bench, "SELECT 1 FROM results WHERE task_id = %s", late):
        bench.sql("UPDATE tasks SET expires_at = clock_timestamp() WHERE task_id = %s", late)
        due = bench.born(delay=0.1)
        until(lambda: due in notes.rung())
        assert bench.status(late) == "pending"
    until(lambda: bench.status(late) == "expired")


def broken_off(cursor: Any) -> None:
    """Its session is broken, as one that is cut is."""
    cursor.execute("SELECT pg_terminate_backend(pg_backend_pid())")


def refused(cursor: Any) -> None:
    """Postgres says no, and the session goes on."""
    cursor.execute("SET TRANSACTION READ ONLY; DELETE FROM tasks")


def bug(cursor: Any) -> None:
    """Nobody has foreseen it."""
    raise RuntimeError("a bug")


@pytest.mark.parametrize("trouble", [broken_off, refused, bug])
def test_a_step_that_fails_each_time_keeps_nobody_from_being_taken_over_nor_the_other_steps_from_going_on(
    bench: Bench, notes: Notes, monkeypatch: pytest.MonkeyPatch, trouble: Callable[[Any], None]
) -> None:
    tried: list[float] = []

    def fail(cursor: Any, **_: Any) -> list[str]:
        tried.append(time.monotonic())
        trouble(cursor)
        return []

    monkeypatch.setattr(sweep.sweeps, "expire", fail)
    monkeypatch.setattr(sweep, "REST", 2.5)
    dying, living = bench.agent("dying"), bench.agent("living")
    lost, kept, due = bench.claimed(by=dying), bench.claimed(by=living), bench.born(delay=0.1)
    running = sweeper(bench, notes, grace=0.8)
    running.start()
    until(lambda: tried)
    dying.die()
    until(lambda: set(notes.rung()) == {due, lost.task_id})
    until(lambda: len(tried) >= 4)  # it is tried again
    running.stop()
    assert bench.status(kept.task_id) == "running"


def test_a_sweeper_that_was_led_to_a_ledger_without_writes_leaves_it_for_one_that_has_them(
    bench: Bench, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    log = LogNotes()
    monkeypatch.setattr(sweep, "log", log)
    task_id = bench.born(delay=0.1)
    ((name,),) = bench.sql("SELECT current_database()")
    bench.sql(f"ALTER DATABASE {name} SET default_transaction_read_only = on")  # for whoever comes from now on
    running = sweeper(bench, notes)
    running.start()
    until(lambda: len(log.said("sweep_waits_for_ledger")) > 2)
    bench.sql(f"SET TRANSACTION READ WRITE; ALTER DATABASE {name} RESET default_transaction_read_only")
    until(lambda: notes.rung() == [task_id])
    running.stop()


def test_a_step_that_is_refused_for_a_moment_goes_on_after_it(
    bench: Bench, notes: Notes, monkeypatch: pytest.MonkeyPatch
) -> None:
    """What it rests for is to break the session again and again."""
    due, tried = sweep.sweeps.due, []

    def refuse_thrice(cursor: Any, **options: Any) -> int:
        tried.append(cursor)
        if len(tried) <= 3:
            refused(cursor)
        return due(cursor, **options)

    monkeypatch.setattr(sweep.sweeps, "due", refuse_thrice)
    monkeypatch.setattr(sweep, "REST", 3600)
    task_id = bench.born(delay=0.1)
    running = sweeper(bench, notes)
    running.start()
    until(lambda: notes.rung() == [task_id])
    running.stop()


def test_many_sweepers_ring_once(bench: Bench, notes: Notes) -> None:
    tasks = [bench.born() for _ in range(50)]
    bench.pass_time(60)
    several = [sweeper(bench, notes) for _ in range(4)]
    for one in several:
        one.start()
    until(lambda: set(notes.rung()) == set(tasks))
    for one in several:
        one.stop()
    assert len(notes.rung()) == len(tasks)
