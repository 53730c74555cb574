"""What always holds in a ledger, whatever was done to it: held against the model after every step."""

from __future__ import annotations

from itertools import pairwise

from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant

from chiffon.domain.states import BIRTHS, ENDS, STEPS, State
from chiffon.ledger.effects import AFTER_END
from tests.bench import Bench
from tests.ledger_model import Model, Task

ROWS = """
SELECT task_id, status, ring_no, execution, incarnation, attempts, retries, crashes, agent_deaths, give_backs,
       cancel_requested_at IS NOT NULL, dead_letter_owed, follows,
       next_ring_at IS NOT NULL AND next_ring_at <= clock_timestamp()
  FROM tasks
"""


class Invariants(RuleBasedStateMachine):
    """A ledger, and a model that must say the same. ``runs``: every execution there has been, by task id and number."""

    bench: Bench
    model: Model

    runs: list[tuple[str, int]]

    def _all(self) -> list[Task]:
        return list(self.model.tasks.values())

    def _in(self, *states: State) -> list[Task]:
        return [task for task in self._all() if task.status in states]

    def _draw(self, data: st.DataObject, *states: State) -> Task:
        """Any task; but one in these states much more often."""
        likely = self._in(*states)
        anyhow = not likely or data.draw(st.integers(0, 9)) == 9
        return data.draw(st.sampled_from(self._all() if anyhow else likely))

    def _draw_run(self, data: st.DataObject) -> tuple[Task, int]:
        """Any execution, the late ones too; but one that goes on more often."""
        running = [(task.task_id, task.execution) for task in self._in(State.RUNNING)]
        late = not running or data.draw(st.integers(0, 3)) == 3
        task_id, execution = data.draw(st.sampled_from(self.runs if late else running))
        return self.model.tasks[task_id], execution

    @invariant()
    def ends_that_nobody_caught_are_seen_to_once(self) -> None:
        born = self.bench.sql(
            "SELECT task_id, request_id, parameters ->> 'task_id' FROM tasks WHERE work_type = %s", AFTER_END
        )
        for task_id, request_id, parent in sorted(born):
            if task_id not in self.model.tasks:
                self.model.uncaught.remove(parent)
                self.model.tasks[parent].born_of.add(task_id)
                self.model.tasks[task_id] = Task(task_id, request_id, State.PENDING, ring_no=0, ring_due=True)
        assert not self.model.uncaught

    @invariant()
    def the_rows_are_as_the_model_says(self) -> None:
        expected = {
            t.task_id: (
                t.task_id, t.status, t.ring_no, t.execution, t.holder, t.attempts, t.retries, t.crashes,
                t.agent_deaths, t.give_backs, t.asked, t.owed, t.follows, t.ring_due,
            )
            for t in self._all()
        }  # fmt: skip
        assert {row[0]: row for row in self.bench.sql(ROWS)} == expected

    @invariant()
    def the_log_has_each_run_and_one_that_goes_on_where_a_task_runs(self) -> None:
        logged: dict[str, dict[int, str | None]] = {task.task_id: {} for task in self._all()}
        for task_id, execution, outcome in self.bench.sql("SELECT task_id, execution, outcome FROM executions"):
            logged[task_id][execution] = outcome
        assert logged == {task.task_id: task.log for task in self._all()}
        for task in self._all():
            assert [n for n, outcome in task.log.items() if outcome is None] == [task.execution] * (
                task.status == State.RUNNING
            )

    @invariant()
    def keys_run_out_after_every_end_and_not_before(self) -> None:
        said = "in flight", "set", "past"
        found = self.bench.sql(
            "SELECT request_id, task_id, CASE WHEN expires_at IS NULL THEN 0"
            " WHEN expires_at > clock_timestamp() THEN 1 ELSE 2 END FROM request_keys"
        )
        assert {request_id: (task_id, said[state]) for request_id, task_id, state in found} == {
            request_id: (key.task_id, key.state) for request_id, key in self.model.keys.items()
        }

    @invariant()
    def history_has_no_gap_and_only_lawful_steps(self) -> None:
        told: dict[str, list[tuple[int, State]]] = {}
        for task_id, number, status in self.bench.sql(
            "SELECT task_id, number, status FROM task_history ORDER BY task_id, number"
        ):
            told.setdefault(task_id, []).append((number, State(status)))
        assert told.keys() == self.model.tasks.keys()
        for task_id, steps in told.items():
            assert [number for number, _ in steps] == list(range(1, len(steps) + 1))
            assert steps[0][1] in BIRTHS
            assert steps[-1][1] == self.model.tasks[task_id].status
            for (_, before), (_, after) in pairwise(steps):
                assert after in STEPS[before], f"{before} -> {after}"

    @invariant()
    def nothing_that_waits_is_forgotten(self) -> None:
        forgotten = (
            "SELECT t.task_id FROM tasks t LEFT JOIN tasks f ON f.task_id = t.follows WHERE t.status = 'pending'"
            " AND t.next_ring_at IS NULL AND (f.task_id IS NULL OR f.finished_at IS NOT NULL)"
        )
        assert not self.bench.sql(forgotten)

    @invariant()
    def every_end_has_a_result_and_nothing_else_has(self) -> None:
        ended = {task.task_id for task in self._all() if task.status in ENDS}
        assert {task_id for (task_id,) in self.bench.sql("SELECT task_id FROM results")} == ended
