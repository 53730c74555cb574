"""Hands on a ledger that reach for the same thing at once, and hands that hear no answer and try again."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.states import State
from chiffon.domain.tasks import Claim, Fate, HeldElsewhere
from chiffon.domain.verdicts import Completed, Verdict
from chiffon.ledger import claims
from chiffon.ledger.connect import Cursor, open_session
from chiffon.ledger.settle import Fenced, Recorded, Settlement, settle
from tests.bench import TTL, Agent
from tests.doubt import Doubt
from tests.ledger_invariants import Invariants
from tests.ledger_model import MAX_CRASHES, MAX_DEATHS, VERDICTS, Task
from tests.racing import race, until

READY = (State.PENDING, State.QUEUED, State.RETRYING)

DONE = Completed('{"output": 1}')


class Races(Invariants):
    """What two do at once, and what one does twice. Nobody can say who wins: so each race ends with what is the same.

    ``dead``: the incarnations that have died. ``doubt``: the same ledger, by a way on which answers can be lost.
    """

    agents: list[Agent]
    dead: set[int]
    doubt: Doubt

    @precondition(lambda self: self._in(*READY))
    @rule(data=st.data(), many=st.integers(1, 3), absent=st.integers(0, 2), verdict=st.sampled_from(VERDICTS))
    def agents_race_for_claims_and_a_settlement_races_with_itself(
        self, data: st.DataObject, many: int, absent: int, verdict: Verdict
    ) -> None:
        racers = [a for n, a in enumerate(self.agents) if n != absent and a.incarnation not in self.dead]
        if len(racers) < 2:
            return
        wanted = sorted({self._draw(data, *READY).task_id for _ in range(many)})
        claimable = {task_id for task_id in wanted if self.model.tasks[task_id].claimable}
        orders = wanted, wanted[::-1]
        fates = race(partial(agent.claim_all, order) for agent, order in zip(racers, orders, strict=True))
        for task_id in wanted:
            of_task = [fate[task_id] for fate in fates]
            winners = [n for n, fate in enumerate(of_task) if isinstance(fate, Claim)]
            assert len(winners) == (task_id in claimable), of_task
            if winners:
                winner = racers[winners[0]].incarnation
                assert of_task[1 - winners[0]] == HeldElsewhere(task_id, winner)
                self._settle_at_once(self.model.tasks[task_id], winner, verdict)

    def _settle_at_once(self, task: Task, winner: int, verdict: Verdict) -> None:
        self.model.claimed(task, winner, str(uuid.uuid4()))
        self.runs.append((task.task_id, task.execution))
        settlement = Settlement(task.task_id, task.execution, verdict)
        self.model.settled(task, verdict, dead_letter=True)
        answers = race([partial(self._settle_on_pool, settlement)] * 2)
        fresh = Recorded(task.status, task.owed, fresh=True)
        assert answers.count(fresh) == 1, answers
        late = next(answer for answer in answers if answer != fresh)
        assert late == Recorded(task.status, task.owed, fresh=False) or isinstance(late, Fenced)

    @rule(which=st.integers(0, 2))
    def an_agent_loses_its_session_and_rejoins(self, which: int) -> None:
        agent = self.agents[which]
        if agent.incarnation in self.dead:
            return
        self.bench.lose(agent)
        assert agent.rejoin() == {
            (task.task_id, task.execution) for task in self._all() if task.holder == agent.incarnation
        }

    def _never_orphaned(self) -> list[str]:
        """What is claimable, and can come to the same end whether it is taken over meanwhile or not."""
        return [task.task_id for task in self._in(*READY) if task.claimable and not (task.agent_deaths or task.embed)]

    @precondition(lambda self: self._never_orphaned())
    @rule(data=st.data(), many=st.integers(1, 3), begun=st.booleans(), in_flight=st.booleans(), ready=st.booleans())
    def an_agent_that_returns_races_with_who_takes_over(
        self, data: st.DataObject, many: int, begun: bool, in_flight: bool, ready: bool
    ) -> None:
        agent = self.bench.agent("returning")
        tasks = [
            self.model.tasks[task_id]
            for task_id in sorted({data.draw(st.sampled_from(self._never_orphaned())) for _ in range(many)})
        ]
        self._have_claimed(agent, tasks, begun=begun)
        done = Settlement(tasks[0].task_id, tasks[0].execution, DONE)
        self.bench.lose(agent)

        def returns() -> tuple[set[tuple[str, int]], Recorded | Fenced]:
            early = self._settle_on_pool(done) if in_flight else None  # said before the session was lost, heard now
            held = until(partial(_rejoined, agent))[0]
            return held, self._settle_on_pool(done) if early is None else early

        def takes_over() -> list[str]:
            if not ready:  # it has a session to open first, as the agent has
                open_session(self.bench.url, "late").close()
            return self.bench.take_over(agent.incarnation, max_deaths=MAX_DEATHS)

        (held, answer), freed = race([returns, takes_over])  # type: ignore[misc, list-item]
        running = {(task.task_id, task.execution) for task in tasks}
        assert answer == Recorded(State.COMPLETED, owes_dead_letter=False, fresh=True) or isinstance(answer, Fenced)
        if isinstance(answer, Recorded):
            self.model.settled(tasks[0], DONE, dead_letter=True)
            running -= {(done.task_id, done.execution)} if in_flight else set()
        assert (done.task_id in freed) == isinstance(answer, Fenced), "fenced or kept, and never both"
        assert held == (set() if freed else running), "what is taken over is the agent's no more"
        assert set(freed) == (self.model.taken_over(agent.incarnation) if freed else set())
        self._have_done(agent, tasks)

    def _have_claimed(self, agent: Agent, tasks: list[Task], *, begun: bool) -> None:
        fates = agent.claim_all([task.task_id for task in tasks])
        for task in tasks:
            claim = fates[task.task_id]
            assert isinstance(claim, Claim)
            self.model.claimed(task, agent.incarnation, str(uuid.uuid4()))
            if begun:
                self.bench.start(claim)
                task.started = True

    def _have_done(self, agent: Agent, tasks: list[Task]) -> None:
        """Whoever has won: now all of it is done, and the agent is gone."""
        again = [task for task in tasks if task.status != State.COMPLETED and task.holder is None]
        self._have_claimed(agent, again, begun=False)
        for task in tasks:
            self.runs.append((task.task_id, task.execution))
            if task.status != State.COMPLETED:
                self.model.settled(task, DONE, dead_letter=True)
                answer = self._settle_on_pool(Settlement(task.task_id, task.execution, DONE))
                assert answer == Recorded(State.COMPLETED, owes_dead_letter=False, fresh=True)
        self.bench.lose(agent)

    @precondition(lambda self: self._in(*READY))
    @rule(data=st.data(), which=st.integers(0, 2), verdict=st.sampled_from([*VERDICTS, None]))
    def nobody_answers(self, data: st.DataObject, which: int, verdict: Verdict | None) -> None:
        agent = self.agents[which]
        if agent.incarnation in self.dead:
            return
        task = self._draw(data, *READY)
        token = str(uuid.uuid4())
        claimable = task.claimable
        claim = partial(self._claim_in_doubt, agent, {task.task_id: token})
        self.doubt.unanswered(claim)
        fate = claim()[task.task_id]
        assert isinstance(fate, Claim) == claimable
        if not isinstance(fate, Claim):
            return
        self.model.claimed(task, agent.incarnation, token)
        self.runs.append((task.task_id, task.execution))
        assert fate.execution == task.execution
        if verdict is None:
            return
        say = partial(self._settle_in_doubt, Settlement(task.task_id, task.execution, verdict))
        self.doubt.unanswered(say)
        self.model.settled(task, verdict, dead_letter=True)
        again = say()
        assert isinstance(again, Recorded)
        assert (again.status, again.fresh) == (task.status, False)

    def _claim_in_doubt(self, agent: Agent, tokens: dict[str, str]) -> dict[str, Fate]:
        with self.doubt.ledger.transaction() as cursor:
            return claims.claim(cursor, tokens, incarnation=agent.incarnation, agent_id=agent.name)

    def _settle_in_doubt(self, settlement: Settlement) -> Recorded | Fenced:
        with self.doubt.ledger.transaction() as cursor:
            return _settled(cursor, settlement)

    def _settle_on_pool(self, settlement: Settlement) -> Recorded | Fenced:
        with self.bench.transaction() as cursor:
            return _settled(cursor, settlement)


def _settled(cursor: Cursor, settlement: Settlement) -> Recorded | Fenced:
    found: dict[Any, Recorded | Fenced] = settle(cursor, [settlement], ttl=TTL, max_crashes=MAX_CRASHES)
    return found[settlement.task_id, settlement.execution]


def _rejoined(agent: Agent) -> list[set[tuple[str, int]]]:
    """What an agent still holds once it has its lock again; nothing while somebody else has that."""
    try:
        return [agent.rejoin()]
    except LedgerUnavailable:
        return []
