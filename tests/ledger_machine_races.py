"""Hands on a ledger that reach for the same thing at once, and hands that hear no answer and try again."""

from __future__ import annotations

import uuid
from functools import partial
from typing import Any

from hypothesis import strategies as st
from hypothesis.stateful import precondition, rule

from chiffon.domain.states import State
from chiffon.domain.tasks import Claim, Fate, HeldElsewhere
from chiffon.domain.verdicts import Verdict
from chiffon.ledger import claims
from chiffon.ledger.connect import Cursor
from chiffon.ledger.settle import Fenced, Recorded, Settlement, settle
from tests.bench import TTL, Agent
from tests.doubt import Doubt
from tests.ledger_invariants import Invariants
from tests.ledger_model import MAX_CRASHES, VERDICTS, Task
from tests.racing import race

READY = (State.PENDING, State.QUEUED, State.RETRYING)


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
