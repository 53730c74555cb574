"""Everything that is known at the end: what the ledger, the witness, the broker and the clients say."""

from __future__ import annotations

import contextlib
import json
from collections import Counter, defaultdict
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from chiffon.bus.letters import DOORBELL
from chiffon.domain.ids import derived_id
from tests.chaos.faults.messages import GARBAGE_HEADER, Rubbish, Thrown
from tests.chaos.incidents import Incident
from tests.chaos.programs import Life
from tests.chaos.promises import Promises
from tests.chaos.stand import Stand
from tests.e2e.raw_amqp import Delivery

ENDS = frozenset({"completed", "failed", "cancelled", "timed_out", "expired", "dead_lettered"})
"""The ends that the contract names; not taken from the product, which might be wrong about them."""


@dataclass(frozen=True)
class Task:
    """A row of `tasks`. Times are seconds since the epoch."""

    task_id: str
    request_id: str
    work_type: str
    status: str
    parameters: dict[str, Any]
    origin: str
    execution: int
    follows: str | None
    dead_letter_owed: bool
    parent_id: str | None
    created_at: float
    finished_at: float | None
    result: Any


@dataclass(frozen=True)
class Execution:
    """A row of `executions`, with the process id of its agent."""

    task_id: str
    execution: int
    incarnation: int
    agent_pid: int
    claimed_at: float
    started_at: float | None
    finished_at: float | None
    outcome: str | None


@dataclass(frozen=True)
class Step:
    """A row of `task_history`."""

    task_id: str
    number: int
    at: float
    status: str
    execution: int | None
    detail: str | None

    @property
    def is_replay(self) -> bool:
        """Whether it opened an ended task again."""
        return self.detail == "replayed"


@dataclass(frozen=True)
class Run:
    """A real run, by its own lines. ``last``: when it was last seen; ``ended``: whether it came to its end.

    ``agent``: the main process of the agent that ran it, and ``incarnation`` who that said it was.
    """

    task_id: str
    execution: int
    incarnation: int
    agent: int
    pid: int
    step: str
    began: float
    last: float
    ended: bool


@dataclass(frozen=True)
class Letters:
    """What lies in `dlx_queue`, by what it names: how often. ``strange``: what names nothing that we know.

    ``named_by_garbage``: the ids of the tasks that garbage would have been.
    """

    tasks: Counter[str] = field(default_factory=Counter)
    garbage: Counter[str] = field(default_factory=Counter)
    named_by_garbage: set[str] = field(default_factory=set)
    strange: list[str] = field(default_factory=list)


@dataclass(frozen=True)
class Evidence:
    """All of it. By task id where there may be many."""

    promises: Promises
    tasks: dict[str, Task]
    executions: dict[str, list[Execution]]
    history: dict[str, list[Step]]
    runs: dict[str, list[Run]]
    incidents: list[Incident]
    lives: list[Life]
    letters: Letters
    thrown: list[Thrown]
    keys_in_flight: dict[str, str]
    left_in_queue: int
    deaf_agents: int
    pulses: list[tuple[str, float | None]]

    def program_of(self, pid: int, at: float) -> str:
        """The program that had this process id at that time."""
        names = [life.program for life in self.lives if life.pid == pid and life.began <= at + 1]
        return names[-1] if names else f"nobody's pid {pid}"

    def execution(self, task_id: str, number: int) -> Execution | None:
        """One execution, or None if the ledger has no such."""
        return next((e for e in self.executions.get(task_id, []) if e.execution == number), None)

    def incidents_of(
        self, target: str, kinds: Iterable[str], start: float, end: float, *, slack: float = 0.0
    ) -> list[Incident]:
        """What of these kinds was done to ``target`` between two moments."""
        wanted = frozenset(kinds)
        return [
            i
            for i in self.incidents
            if i.target == target and i.kind in wanted and i.happened and i.touches(start, end, slack=slack)
        ]


_TASKS = """
SELECT t.task_id, t.request_id, t.work_type, t.status, t.parameters, t.origin, t.execution, t.follows,
       t.dead_letter_owed, t.canvas ->> 'parent_id' AS parent_id,
       extract(epoch FROM t.created_at)::float8 AS created_at,
       extract(epoch FROM t.finished_at)::float8 AS finished_at, r.result
  FROM tasks t LEFT JOIN results r USING (task_id)
"""
_EXECUTIONS = """
SELECT e.task_id, e.execution, incarnation, a.pid AS agent_pid, extract(epoch FROM e.claimed_at)::float8 AS claimed_at,
       extract(epoch FROM e.started_at)::float8 AS started_at,
       extract(epoch FROM e.finished_at)::float8 AS finished_at, e.outcome
  FROM executions e JOIN agents a USING (incarnation) ORDER BY e.task_id, e.execution
"""
_HISTORY = """
SELECT task_id, number, extract(epoch FROM at)::float8 AS at, status, execution, detail
  FROM task_history ORDER BY task_id, number
"""


def gather(stand: Stand, promises: Promises, rubbish: Rubbish, pulses: Sequence[tuple[str, float | None]]) -> Evidence:
    """Read everything, now that everything is at rest and can be reached."""
    ledger = stand.ledger
    executions, history = defaultdict(list), defaultdict(list)
    for row in ledger.rows(_EXECUTIONS):
        executions[row["task_id"]].append(Execution(**row))
    for row in ledger.rows(_HISTORY):
        history[row["task_id"]].append(Step(**row))
    in_flight = ledger.rows("SELECT request_id, task_id FROM request_keys WHERE expires_at IS NULL")
    return Evidence(
        promises=promises,
        tasks={row["task_id"]: Task(**row) for row in ledger.rows(_TASKS)},
        executions=executions,
        history=history,
        runs=witnessed(stand.witness),
        incidents=stand.incidents.all(),
        lives=[life for program in stand.programs for life in program.lives],
        letters=sorted_out(stand.amqp.look("dlx_queue")),
        thrown=list(rubbish.thrown),
        keys_in_flight={row["request_id"]: row["task_id"] for row in in_flight},
        left_in_queue=messages_in(stand, "work_queue"),
        deaf_agents=len(stand.agents) - stand.consumers(),
        pulses=list(pulses),
    )


def messages_in(stand: Stand, queue: str) -> int:
    """How many messages a queue has, those in somebody's hands included."""
    listed = stand.rabbitmq.ctl("list_queues", "name", "messages")
    rows = (line.split() for line in listed.splitlines())
    return sum(int(row[1]) for row in rows if row[:1] == [queue] and row[1].isdigit())


def witnessed(path: Path) -> dict[str, list[Run]]:
    """The real runs by task, each task's in the order in which they began."""
    lines: dict[tuple[str, int, int, int], list[dict[str, Any]]] = defaultdict(list)
    begun: Counter[tuple[str, int, int]] = Counter()
    with contextlib.suppress(FileNotFoundError), path.open() as file:
        for line in map(json.loads, file):
            one = (line["task_id"], line["execution"], line["pid"])
            begun[one] += line["what"] == "begin"
            lines[*one, begun[one]].append(line)
    runs: dict[str, list[Run]] = defaultdict(list)
    for (task_id, execution, pid, _), said in lines.items():
        first = said[0]
        runs[task_id].append(
            Run(task_id, execution, first["incarnation"], first["agent"], pid, first["step"], first["at"],
                said[-1]["at"], ended=said[-1]["what"] == "end")
        )  # fmt: skip
    return {task_id: sorted(of_task, key=lambda run: run.began) for task_id, of_task in runs.items()}


def sorted_out(found: Iterable[Delivery]) -> Letters:
    """What lies in `dlx_queue`, by whose letter it is.

    A doorbell carries its sender's own headers on: that of a task which was garbage once, and was replayed, is named
    as garbage, and is the task's letter.
    """
    letters = Letters()
    for letter in found:
        if (name := letter.headers.get(GARBAGE_HEADER)) and DOORBELL not in letter.headers:
            letters.garbage[name] += 1
            letters.named_by_garbage.update(_named(letter))
        elif task_id := letter.headers.get("id"):
            letters.tasks[task_id] += 1
        else:
            letters.strange.append(f"{letter.headers} {letter.properties} {letter.body[:200]!r}")
    return letters


def _named(letter: Delivery) -> set[str]:
    """The ids that a message's task can have: one of Celery's, its own, or one derived from its message id."""
    try:
        said = json.loads(letter.body)
    except (ValueError, RecursionError):  # no JSON, or too much of it
        said = None
    members = said if isinstance(said, dict) else {}
    message_id = members.get("message_id") or letter.properties.get("message_id")
    found = [letter.headers.get("id"), members.get("task_id"), message_id and derived_id("message", str(message_id))]
    return {name for name in found if isinstance(name, str)}
