"""What the ledger should say, by a second account of the protocol that knows no SQL."""

from __future__ import annotations

from dataclasses import dataclass, field

from chiffon.domain.states import ENDS, REPLAYABLE, WAITING, State
from chiffon.domain.verdicts import (
    Cancelled,
    Completed,
    Crashed,
    DeadLettered,
    Failed,
    GivenBack,
    Replaced,
    RetryLater,
    TimedOut,
    Verdict,
)
from tests.builders import an_error

MAX_CRASHES = 2
MAX_DEATHS = 2

GOALS: dict[type[Verdict], tuple[State, str]] = {
    Completed: (State.COMPLETED, "completed"),
    Failed: (State.FAILED, "failed"),
    TimedOut: (State.TIMED_OUT, "timed_out"),
    Cancelled: (State.CANCELLED, "cancelled"),
    DeadLettered: (State.DEAD_LETTERED, "dead_lettered"),
    RetryLater: (State.RETRYING, "retried"),
    Crashed: (State.PENDING, "crashed"),
    GivenBack: (State.PENDING, "given_back"),
    Replaced: (State.PENDING, "replaced"),
}
"""Where each verdict leads if nothing speaks against it, and what the log of executions calls it."""

VERDICTS: list[Verdict] = [
    Completed('{"output": 1}'),
    Failed(an_error()),
    TimedOut(an_error()),
    Cancelled(an_error()),
    DeadLettered(an_error()),
    RetryLater(3600.0, an_error()),
    Crashed(an_error()),
    GivenBack(an_error(), started=True),
    GivenBack(an_error(), started=False),
    Replaced(),
]


@dataclass
class Key:
    """A ``request_id``: whose it is, and whether it runs out (`set`) or has run out (`past`)."""

    task_id: str
    state: str = "in flight"


@dataclass
class Task:
    """A task as it should be. ``due`` and ``late``: whether ``run_at`` and ``expires_at`` have passed."""

    task_id: str
    request_id: str
    status: State
    ring_no: int = 1
    ring_due: bool = False
    due: bool = False
    expires: bool = False
    late: bool = False
    embed: bool = False
    follows: str | None = None
    execution: int = 0
    holder: int | None = None
    token: str | None = None
    started: bool = False
    asked: bool = False
    owed: bool = False
    attempts: int = 0
    retries: int = 0
    crashes: int = 0
    agent_deaths: int = 0
    give_backs: int = 0
    log: dict[int, str | None] = field(default_factory=dict)
    born_of: set[str] = field(default_factory=set)
    """The ids of the tasks that saw to its ends."""

    @property
    def claimable(self) -> bool:
        """Whether a claim would take it."""
        ready = self.status in {State.PENDING, State.QUEUED} or (self.status == State.RETRYING and self.due)
        return ready and self.follows is None and not self.asked and not self.late


class Model:
    """Every task, and every key."""

    def __init__(self) -> None:
        self.tasks: dict[str, Task] = {}
        self.keys: dict[str, Key] = {}
        self.uncaught: set[str] = set()
        """Tasks with callbacks whose last end still has to show who sees to it."""

    def holder_of(self, request_id: str) -> str | None:
        """Whose a ``request_id`` is; None: it is free."""
        key = self.keys.get(request_id)
        return None if key is None or key.state == "past" else key.task_id

    def born(self, task: Task, *, keyed: bool) -> None:
        """A task was accepted."""
        self.tasks[task.task_id] = task
        if keyed:
            self.keys[task.request_id] = Key(task.task_id)

    def born_behind(self, task: Task, first: Task) -> None:
        """A task was written down behind another, whose end it takes."""
        task.ring_no, task.follows = 0, first.task_id
        task.status = first.status if first.status in ENDS else State.PENDING
        self.tasks[task.task_id] = task
        if task.status in ENDS and task.embed:
            self.uncaught.add(task.task_id)

    def claimed(self, task: Task, holder: int, token: str) -> None:
        """An agent took it."""
        task.status, task.holder, task.token = State.RUNNING, holder, token
        task.execution += 1
        task.attempts += 1
        task.ring_no += 1
        task.started = task.due = task.ring_due = False
        task.log[task.execution] = None

    def settled(self, task: Task, verdict: Verdict, *, dead_letter: bool) -> None:
        """Its holder says how it came out."""
        status, outcome = GOALS[type(verdict)]
        crashed = isinstance(verdict, Crashed)
        withdrawn = isinstance(verdict, GivenBack) and not verdict.started
        if task.asked and status in {State.RETRYING, State.PENDING, State.FAILED}:
            status = State.CANCELLED
        elif crashed and task.crashes + 1 >= MAX_CRASHES:
            status = State.DEAD_LETTERED
        task.attempts -= withdrawn
        task.retries += status == State.RETRYING
        task.crashes += crashed
        task.give_backs += isinstance(verdict, GivenBack)
        task.log[task.execution] = outcome
        if withdrawn:
            del task.log[task.execution]
        self._released(task, status, owed=dead_letter and status in {State.FAILED, State.DEAD_LETTERED})

    def taken_over(self, incarnation: int) -> set[str]:
        """The agent has died; the ids of what it held."""
        orphans = [task for task in self.tasks.values() if task.holder == incarnation]
        for task in orphans:
            status = State.PENDING
            if task.asked:
                status = State.CANCELLED
            elif task.started and task.agent_deaths + 1 >= MAX_DEATHS:
                status = State.DEAD_LETTERED
            task.agent_deaths += task.started
            task.give_backs += not task.started
            task.log[task.execution] = "agent_lost"
            self._released(task, status, owed=status == State.DEAD_LETTERED)
        return {task.task_id for task in orphans}

    def cancelled(self, task: Task) -> str:
        """Somebody wants it cancelled; what that comes to: ended, asked or refused."""
        if task.status in WAITING:
            task.asked = True
            self.ended(task, State.CANCELLED)
        elif task.status == State.RUNNING:
            task.asked = True
            return "asked"
        return "ended" if task.status == State.CANCELLED else "refused"

    def replayed(self, task: Task) -> bool:
        """Somebody wants it done again; whether it may be."""
        if task.status not in REPLAYABLE or self.holder_of(task.request_id) not in {None, task.task_id}:
            return False
        self.keys[task.request_id] = Key(task.task_id)
        task.status, task.follows = State.PENDING, None
        task.ring_no += 1
        task.retries = task.crashes = task.agent_deaths = task.give_backs = 0
        task.ring_due = task.due = task.asked = task.owed = task.expires = task.late = False
        self.uncaught.discard(task.task_id)
        return True

    def ended(self, task: Task, status: State, *, owed: bool = False) -> None:
        """It is over, for it and for who takes its end."""
        task.status, task.owed, task.ring_due, task.due = status, owed, False, False
        if (key := self.keys.get(task.request_id)) is not None and key.task_id == task.task_id:
            key.state = "set"
        if task.embed:
            self.uncaught.add(task.task_id)
        for follower in self.tasks.values():
            if follower.follows == task.task_id and follower.status == State.PENDING:
                follower.status, follower.owed = status, False
                if follower.embed:
                    self.uncaught.add(follower.task_id)

    def _released(self, task: Task, status: State, *, owed: bool) -> None:
        task.holder = task.token = None
        if status in ENDS:
            self.ended(task, status, owed=owed)
        else:
            task.status, task.ring_due, task.due, task.owed = status, status == State.PENDING, False, False
