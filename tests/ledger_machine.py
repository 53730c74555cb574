"""Hands on a ledger that do whatever is possible, in any order, the dead and the late among them."""

from __future__ import annotations

import uuid
from typing import Any

import pytest
from hypothesis import strategies as st
from hypothesis.stateful import initialize, precondition, rule

from chiffon.dispatch.cancel import Cancelling, cancel
from chiffon.dispatch.replay import replay
from chiffon.domain.errors import WrongState
from chiffon.domain.states import ENDS, REPLAYABLE, WAITING, State
from chiffon.domain.tasks import Accepted, Claim, Duplicate, Fate, HeldElsewhere, NewTask, NotDue, Settled
from chiffon.domain.verdicts import Verdict
from chiffon.ledger import claims, condemn, follow, rings, sweeps
from chiffon.ledger.settle import Fenced, Recorded, Settlement, clear_debts, settle
from tests.bench import TTL, Agent, Bench
from tests.builders import an_error, new_task
from tests.doubt import Doubt
from tests.ledger_machine_races import READY, Races
from tests.ledger_model import MAX_CRASHES, MAX_DEATHS, VERDICTS, Model, Task

LIMIT = 1000
KEYS = ["key a", "key b"]
CALLBACKS = {"embed": {"callbacks": [{"task": "echo"}]}}
TABLES = "tasks, executions, results, request_keys, task_history, agents"


class LedgerMachine(Races):
    """Accepts, rings, claims, settles, dies, asks, and has time pass; the model says what should come of each."""

    def __init__(self, bench: Bench, doubt: Doubt) -> None:
        super().__init__()
        self.bench = bench
        self.doubt = doubt
        self.bench.sql(f"TRUNCATE {TABLES}")
        self.model = Model()
        self.agents = [self.bench.agent(f"agent-{number}") for number in range(3)]
        self.dead: set[int] = set()
        self.runs: list[tuple[str, int]] = []
        self.made = 0

    def teardown(self) -> None:
        self.bench.close()

    # Accepting

    @initialize(data=st.data())
    def accept_some(self, data: st.DataObject) -> None:
        for key in (KEYS[0], None, None):
            self.accept(key, True, data.draw(st.booleans()), data.draw(st.booleans()), data.draw(st.booleans()))

    @rule(
        key=st.sampled_from([*KEYS, None]),
        keyed=st.booleans(),
        later=st.sampled_from([False, False, True]),
        expires=st.booleans(),
        embed=st.booleans(),
    )
    def accept(self, key: str | None, keyed: bool, later: bool, expires: bool, embed: bool) -> None:
        times = {"delay": 3600.0 if later else None, "expires_in": 3600.0 if expires else None}
        new = self._new(key, keyed=keyed, canvas=CALLBACKS if embed else {}, **times)
        request_id = new.request_id
        (fate,) = self.bench.accept(new, lease=3600)
        holder = self.model.holder_of(request_id) if keyed else None
        if holder is not None:
            assert fate == Duplicate(holder)
            return
        assert fate == Accepted(new.task_id)
        status = State.SCHEDULED if later else State.PENDING
        self.model.born(Task(new.task_id, request_id, status, expires=expires, embed=embed), keyed=keyed)

    @precondition(lambda self: self.model.keys)
    @rule(data=st.data(), embed=st.booleans())
    def follow(self, data: st.DataObject, embed: bool) -> None:
        key = data.draw(st.sampled_from(sorted(self.model.keys)))
        if (holder := self.model.holder_of(key)) is None:
            return
        new = self._new(key, canvas=CALLBACKS if embed else {}, origin="message")
        with self.bench.transaction() as cursor:
            status = follow.follow(cursor, new, holder)
        self.model.born_behind(Task(new.task_id, key, State.PENDING, embed=embed), self.model.tasks[holder])
        assert status == self.model.tasks[new.task_id].status

    def _new(self, key: str | None, **fields: Any) -> NewTask:
        """A task whose ids are the same ones whenever the same is tried again."""
        self.made += 1
        return new_task(task_id=f"task {self.made:03}", request_id=key or f"key {self.made:03}", **fields)

    # Ringing

    @precondition(lambda self: self._in(State.PENDING, State.QUEUED))
    @rule(data=st.data(), how=st.sampled_from(["lease", "confirm", "confirm", "lose"]))
    def ring(self, data: st.DataObject, how: str) -> None:
        match how:
            case "lease":
                self._lease()
            case "confirm" if self._in(State.PENDING):
                self._confirm(data)
            case "lose":
                self._find_lost()

    def _lease(self) -> None:
        due = {task.task_id for task in self._all() if task.status == State.PENDING and task.ring_due}
        with self.bench.transaction() as cursor:
            leased = rings.lease(cursor, limit=LIMIT, lease=3600)
        assert {ring.task_id for ring in leased} == due
        for ring in leased:
            task = self.model.tasks[ring.task_id]
            task.ring_no += 1
            task.ring_due = False
            assert ring.ring_no == task.ring_no

    def _confirm(self, data: st.DataObject) -> None:
        late = data.draw(st.sampled_from([0, 0, 0, 1, 2]))
        task = self._draw(data, State.PENDING)
        ring_no = task.ring_no - late
        if ring_no < 1:  # there was no such ring
            return
        counts = task.status == State.PENDING and late == 0
        assert self.bench.confirm(task.task_id, ring_no) == counts
        if counts:
            task.status, task.ring_due = State.QUEUED, False

    def _find_lost(self) -> None:
        with self.bench.transaction() as cursor:
            sweeps.lost(cursor, queue="work_queue", priority=None, rung_before=None, older_than=0.0, limit=LIMIT)
        for task in self._in(State.QUEUED):
            task.status, task.ring_due = State.PENDING, True

    # Running

    @precondition(lambda self: self._in(*READY))
    @rule(data=st.data(), which=st.integers(0, 2), many=st.integers(1, 3), done=st.booleans())
    def claim(self, data: st.DataObject, which: int, many: int, done: bool) -> None:
        agent = self.agents[which]
        if agent.incarnation in self.dead:
            return
        wanted = sorted({self._draw(data, *READY).task_id for _ in range(many)})
        tokens = {task_id: str(uuid.uuid4()) for task_id in wanted}
        won = [task_id for task_id in wanted if self.model.tasks[task_id].claimable]
        for task_id, fate in sorted(self._claim(agent, tokens).items()):
            task = self.model.tasks[task_id]
            if task_id in won:
                self.model.claimed(task, agent.incarnation, tokens[task_id])
                self.runs.append((task_id, task.execution))
                assert isinstance(fate, Claim)
                assert fate.execution == task.execution
            elif task.status in ENDS:
                assert fate == Settled(task_id, task.status)
            elif task.holder is not None:
                assert fate == HeldElsewhere(task_id, task.holder)
            else:
                assert fate == NotDue(task_id)
        for task_id in won if done else []:
            self._settle_first(self.model.tasks[task_id], data.draw(st.sampled_from(VERDICTS)), dead_letter=True)

    @precondition(lambda self: self._in(State.RUNNING))
    @rule(data=st.data())
    def claim_again_with_the_same_token(self, data: st.DataObject) -> None:
        task = data.draw(st.sampled_from(self._in(State.RUNNING)))
        agent = next((a for a in self.agents if a.incarnation == task.holder), None)
        if agent is not None and task.token is not None:
            fate = self._claim(agent, {task.task_id: task.token})[task.task_id]
            assert isinstance(fate, Claim)
            assert fate.execution == task.execution

    def _claim(self, agent: Agent, tokens: dict[str, str]) -> dict[str, Fate]:
        with self.bench.transaction() as cursor:
            return claims.claim(cursor, tokens, incarnation=agent.incarnation, agent_id=agent.name)

    @precondition(lambda self: self.runs)
    @rule(data=st.data())
    def mark_started(self, data: st.DataObject) -> None:
        task, execution = self._draw_run(data)
        with self.bench.transaction() as cursor:
            claims.mark_started(cursor, {(task.task_id, execution): 0.0})
        if task.holder is not None and task.execution == execution:
            task.started = True

    @precondition(lambda self: self.runs)
    @rule(data=st.data(), verdict=st.sampled_from(VERDICTS), dead_letter=st.booleans(), twice=st.booleans())
    def settle(self, data: st.DataObject, verdict: Verdict, dead_letter: bool, twice: bool) -> None:
        task, execution = self._draw_run(data)
        if task.holder is not None and task.execution == execution:
            self._settle_first(task, verdict, dead_letter=dead_letter)
        if twice or task.execution != execution:
            again = self._settle(task, execution, verdict, dead_letter)
            outcome = task.log.get(execution, "withdrawn")
            assert isinstance(again, Fenced if outcome in {"agent_lost", None} else Recorded)
            assert not (isinstance(again, Recorded) and again.fresh)

    def _settle_first(self, task: Task, verdict: Verdict, *, dead_letter: bool) -> None:
        answer = self._settle(task, task.execution, verdict, dead_letter)
        self.model.settled(task, verdict, dead_letter=dead_letter)
        assert answer == Recorded(task.status, task.owed, fresh=True)

    def _settle(self, task: Task, execution: int, verdict: Verdict, dead_letter: bool) -> Recorded | Fenced:
        run = (task.task_id, execution)
        settlement = Settlement(*run, verdict, dead_letter=dead_letter)
        with self.bench.transaction() as cursor:
            return settle(cursor, [settlement], ttl=TTL, max_crashes=MAX_CRASHES)[run]

    # Dying

    @precondition(lambda self: self._in(State.RUNNING))
    @rule(which=st.integers(0, 2))
    def die_or_be_taken_over(self, which: int) -> None:
        agent = self.agents[which]
        incarnation = agent.incarnation
        if incarnation not in self.dead:
            assert self.bench.take_over(incarnation) == [], "it lives, and keeps its work"
            self.bench.lose(agent)
            self.dead.add(incarnation)
            return
        freed = set(self.bench.take_over(incarnation, max_deaths=MAX_DEATHS))
        assert freed == self.model.taken_over(incarnation)
        self.agents[which] = self.bench.agent(f"agent-{which}")

    # Asking

    @rule(data=st.data(), what=st.sampled_from(["cancel", "replay", "condemn", "pay"]))
    def ask(self, data: st.DataObject, what: str) -> None:
        getattr(self, f"_{what}")(data)

    def _cancel(self, data: st.DataObject) -> None:
        task = self._draw(data, *WAITING, State.RUNNING)
        expected = self.model.cancelled(task)
        if expected == "refused":
            with pytest.raises(WrongState):
                cancel(self.bench.ledger, task.task_id, ttl=TTL)
        else:
            assert cancel(self.bench.ledger, task.task_id, ttl=TTL) == Cancelling(expected)

    def _replay(self, data: st.DataObject) -> None:
        task = self._draw(data, *REPLAYABLE)
        if self.model.replayed(task):
            assert replay(self.bench.ledger, task.task_id, lease=3600).ring_no == task.ring_no
        else:
            with pytest.raises(WrongState):
                replay(self.bench.ledger, task.task_id, lease=3600)

    def _condemn(self, data: st.DataObject) -> None:
        task, owed = self._draw(data), data.draw(st.booleans())
        may = task.status in READY
        with self.bench.transaction() as cursor:
            assert condemn.condemn(cursor, task.task_id, an_error(), owed=owed, ttl=TTL) == may
        if may:
            self.model.ended(task, State.DEAD_LETTERED, owed=owed)

    def _pay(self, data: st.DataObject) -> None:
        task = self._draw(data, State.FAILED, State.DEAD_LETTERED)
        with self.bench.transaction() as cursor:
            clear_debts(cursor, [(task.task_id, task.execution)])
        task.owed = False

    # Time

    @precondition(lambda self: self._in(State.SCHEDULED, State.RETRYING))
    @rule(data=st.data(), swept=st.booleans())
    def a_time_comes(self, data: st.DataObject, swept: bool) -> None:
        task = self._draw(data, State.SCHEDULED, State.RETRYING)
        self._past("tasks", "run_at", "task_id", task.task_id)
        task.due = task.status in {State.SCHEDULED, State.RETRYING}
        if swept:
            due = [task for task in self._all() if task.due]
            assert self.bench.due() == len(due)
            for task in due:
                task.status, task.ring_due, task.due = State.PENDING, True, False

    @precondition(lambda self: any(task.expires and not task.late for task in self._all()))
    @rule(data=st.data(), swept=st.booleans())
    def an_expiry_comes(self, data: st.DataObject, swept: bool) -> None:
        task = data.draw(st.sampled_from([task for task in self._all() if task.expires and not task.late]))
        self._past("tasks", "expires_at", "task_id", task.task_id)
        task.late = True
        if swept:
            late = [task for task in self._all() if task.late and task.status in WAITING]
            assert set(self.bench.expire()) == {task.task_id for task in late}
            for task in late:
                self.model.ended(task, State.EXPIRED)

    @precondition(lambda self: self._in(State.PENDING))
    @rule(data=st.data())
    def a_lease_runs_out(self, data: st.DataObject) -> None:
        task = self._draw(data, State.PENDING)
        self._past("tasks", "next_ring_at", "task_id", task.task_id)
        task.ring_due = task.status == State.PENDING and task.follows is None

    @precondition(lambda self: any(key.state == "set" for key in self.model.keys.values()))
    @rule(data=st.data())
    def a_key_runs_out(self, data: st.DataObject) -> None:
        over = sorted(name for name, key in self.model.keys.items() if key.state == "set")
        name = data.draw(st.sampled_from(over))
        self._past("request_keys", "expires_at", "request_id", name)
        self.model.keys[name].state = "past"

    def _past(self, table: str, moment: str, name: str, value: str) -> None:
        passed = f"{moment} = clock_timestamp() - interval '1 s'"
        self.bench.sql(f"UPDATE {table} SET {passed} WHERE {name} = %s AND {moment} IS NOT NULL", value)
