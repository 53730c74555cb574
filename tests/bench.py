"""A ledger on a bench: each step of a task's life in a line, and time that passes when the test says so."""

from __future__ import annotations

import contextlib
import threading
import uuid
from collections.abc import Callable, Iterator, Sequence
from typing import Any

from chiffon.agent.life import Identity, Life
from chiffon.config import validated_database_url
from chiffon.domain.states import State
from chiffon.domain.tasks import Acceptance, Claim, Fate, NewTask
from chiffon.domain.verdicts import Cancelled, Completed, DeadLettered, Failed, RetryLater, TimedOut, Verdict
from chiffon.ledger import agents, claims, rings, sweeps
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import Cursor, Ledger, open_session, session_transaction
from chiffon.ledger.effects import CHANNEL
from chiffon.ledger.settle import Fenced, Recorded, Settlement, settle
from tests.builders import an_error, new_task
from tests.racing import until

TTL = 300.0
MAX_CRASHES = 3
LEASE = 5.0

ENDING: dict[State, Verdict] = {
    State.COMPLETED: Completed('{"output": 1}'),
    State.FAILED: Failed(an_error()),
    State.TIMED_OUT: TimedOut(an_error("too slow", "TimeLimitExceeded")),
    State.CANCELLED: Cancelled(an_error("cancelled", "TaskRevokedError")),
    State.DEAD_LETTERED: DeadLettered(an_error("cannot be run")),
    State.RETRYING: RetryLater(3600.0, an_error()),
}
"""The verdict that leads from `running` to each state."""


class Agent:
    """One life of an agent, on a session of its own that holds its lock."""

    def __init__(
        self,
        url: str,
        name: str,
        *,
        slots: int = 4,
        work_types: Sequence[str] = ("echo",),
        queues: Sequence[str] = ("work_queue",),
    ) -> None:
        self.name = name
        self._url = url
        self.session = open_session(url, f"agent {name}")
        with session_transaction(self.session) as cursor:
            self.incarnation = agents.register(
                cursor,
                agent_id=name,
                hostname="bench",
                pid=1,
                slots=slots,
                queues=queues,
                work_types=work_types,
                version="0",
            )

    def claim(self, task_id: str, *, token: str | None = None) -> Fate:
        """Claim a task."""
        return self.claim_all([task_id], token=token)[task_id]

    def claim_all(self, task_ids: Sequence[str], *, token: str | None = None) -> dict[str, Fate]:
        """Claim many in one statement."""
        offers = {task_id: token or str(uuid.uuid4()) for task_id in task_ids}
        with session_transaction(self.session) as cursor:
            return claims.claim(cursor, offers, incarnation=self.incarnation, agent_id=self.name)

    def rejoin(self) -> set[tuple[str, int]]:
        """Be there again after its session was lost; the executions that are its own still.

        Raises LedgerUnavailable while somebody else holds the lock.
        """
        life = Life(self._url, Identity(self.name, 4, ("work_queue",), ("echo",), "0"))
        life.incarnation = self.incarnation
        held = life.begin()
        self.session = life._session
        return held

    def die(self) -> None:
        """Be gone without a word, and the lock with it."""
        self.session.close()


class Bench:
    """A ledger with hands on it."""

    def __init__(self, url: str) -> None:
        self.url = validated_database_url(url)
        self.ledger = Ledger(self.url)
        self._agents: list[Agent] = []
        self._own = threading.local()
        self._sessions: list[Any] = []

    @property
    def _session(self) -> Any:
        """A session such as an agent holds, one a thread."""
        if getattr(self._own, "session", None) is None or self._own.session.closed:
            self._own.session = open_session(self.url, "bench")
            self._sessions.append(self._own.session)
        return self._own.session

    def transaction(self) -> contextlib.AbstractContextManager[Cursor]:
        """A transaction of the pool."""
        return self.ledger.transaction()

    def sql(self, statement: str, *values: Any) -> list[tuple[Any, ...]]:
        """What a statement of the test's own returns."""
        with self.transaction() as cursor:
            cursor.execute(statement, values)
            return cursor.fetchall() if cursor.description else []

    def row(self, task_id: str) -> dict[str, Any]:
        """A task's row."""
        with self.transaction() as cursor:
            cursor.execute("SELECT * FROM tasks WHERE task_id = %s", (task_id,))
            return dict(zip((column.name for column in cursor.description), cursor.fetchone(), strict=True))

    def status(self, task_id: str) -> str:
        """Where a task stands."""
        return str(self.row(task_id)["status"])

    def history(self, task_id: str) -> list[str]:
        """The states a task has been in, in order; the numbers have no gap."""
        rows = self.sql("SELECT number, status FROM task_history WHERE task_id = %s ORDER BY number", task_id)
        assert [number for number, _ in rows] == list(range(1, len(rows) + 1))
        return [status for _, status in rows]

    def outcomes(self, task_id: str) -> list[str | None]:
        """How a task's executions came out, in order."""
        return [o for (o,) in self.sql("SELECT outcome FROM executions WHERE task_id = %s ORDER BY execution", task_id)]

    def result(self, task_id: str) -> tuple[str, Any] | None:
        """Celery's word for a task's end and its result, or None."""
        rows = self.sql("SELECT status, result FROM results WHERE task_id = %s", task_id)
        return rows[0] if rows else None

    def pass_time(self, seconds: float) -> None:
        """Let time pass: every moment in the ledger is so much longer ago."""
        moments = self.sql(
            "SELECT table_name, column_name FROM information_schema.columns"
            " WHERE table_schema = 'public' AND data_type LIKE 'timestamp%%'"
        )
        for table in {table for table, _ in moments}:
            columns = [column for other, column in moments if other == table]
            assignments = ", ".join(f"{name} = {name} - make_interval(secs => %(seconds)s)" for name in columns)
            with self.transaction() as cursor:
                cursor.execute(f"UPDATE {table} SET {assignments}", {"seconds": seconds})

    def agent(self, name: str = "agent@bench", **options: Any) -> Agent:
        """A new life of an agent."""
        self._agents.append(Agent(self.url, name, **options))
        return self._agents[-1]

    def lose(self, agent: Agent) -> None:
        """Have an agent die; its lock is free a moment later."""
        agent.die()
        held = "SELECT true FROM pg_locks WHERE locktype = 'advisory' AND classid = %s AND objid::bigint = %s"
        until(lambda: not self.sql(held, sweeps.LOCK_CLASS, agent.incarnation))

    @property
    def someone(self) -> Agent:
        """Some living agent."""
        return self._agents[0] if self._agents else self.agent()

    def accept(self, *tasks: NewTask, lease: float = LEASE) -> list[Acceptance]:
        """What becomes of tasks that are accepted in one commit."""
        with self.transaction() as cursor:
            return accept(cursor, tasks, lease=lease)[0]

    def born(self, **fields: Any) -> str:
        """The id of a new task."""
        task = new_task(**fields)
        self.accept(task)
        return task.task_id

    def confirm(self, task_id: str, ring_no: int = 1) -> int:
        """Note that the broker has a ring."""
        with self.transaction() as cursor:
            return rings.confirm(cursor, [(task_id, ring_no)])

    def claimed(self, task_id: str | None = None, *, by: Agent | None = None) -> Claim:
        """The claim of a task, a new one by default."""
        found = (by or self.someone).claim(task_id or self.born())
        assert isinstance(found, Claim)
        return found

    def start(self, claim: Claim) -> None:
        """Mark that a run has begun."""
        with self.transaction() as cursor:
            claims.mark_started(cursor, {(claim.task_id, claim.execution): 0.0})

    def settle(
        self, held: Claim | tuple[str, int], verdict: Verdict, *, max_crashes: int = MAX_CRASHES, **more: Any
    ) -> Recorded | Fenced:
        """Write down how an execution, by its claim or by (task id, number), came out."""
        key = (held.task_id, held.execution) if isinstance(held, Claim) else held
        with session_transaction(self._session) as cursor:
            return settle(cursor, [Settlement(*key, verdict, **more)], ttl=TTL, max_crashes=max_crashes)[key]

    def expire(self) -> list[str]:
        """End what has expired."""
        with self.transaction() as cursor:
            return sweeps.expire(cursor, limit=100, ttl=TTL)

    def due(self) -> int:
        """Move what is due."""
        with self.transaction() as cursor:
            return sweeps.due(cursor, limit=100)

    def take_over(self, incarnation: int, *, max_deaths: int = 9) -> list[str]:
        """Free the tasks of a dead incarnation; their ids."""
        with self.transaction() as cursor:
            freed = sweeps.take_over(cursor, incarnation, ttl=TTL, max_deaths=max_deaths)
        return [task.task_id for task in freed]

    def task_in(self, state: State, **fields: Any) -> str:
        """The id of a new task that has come to a state by lawful steps."""
        if state == State.EXPIRED:
            task_id = self.born(expires_in=-1.0, **fields)
            assert task_id in self.expire()
        elif state == State.SCHEDULED:
            task_id = self.born(delay=3600.0, **fields)
        else:
            task_id = self.born(**fields)
            if state == State.QUEUED:
                self.confirm(task_id)
            elif state != State.PENDING:
                claim = self.claimed(task_id)
                if state != State.RUNNING:
                    self.settle(claim, ENDING[state])
        assert self.status(task_id) == state
        return task_id

    def in_every_state(self, **fields: Any) -> dict[State, str]:
        """A task in each state."""
        return {state: self.task_in(state, **fields) for state in State}

    def close(self) -> None:
        """Clear the bench."""
        for agent in self._agents:
            agent.die()
        for session in self._sessions:
            session.close()
        self.ledger.close()


@contextlib.contextmanager
def listening(bench: Bench) -> Iterator[Callable[[], list[str]]]:
    """What is notified meanwhile: each call says which ends were told since the last."""
    session = open_session(bench.url, "listener")
    session.autocommit = True
    with contextlib.closing(session), session.cursor() as cursor:
        cursor.execute(f"LISTEN {CHANNEL}")

        def heard() -> list[str]:
            cursor.execute("SELECT 1")  # a notification of an earlier commit comes before the answer
            told = [notification.payload for notification in session.notifies]
            session.notifies.clear()
            return told

        yield heard
