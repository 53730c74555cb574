"""The runs against the log of them: each is accounted for, none is beside another, none comes after the end."""

from __future__ import annotations

import itertools
import math
from collections import Counter
from collections.abc import Iterator

from tests.chaos.audit.excuses import PUBLISHERS, no_broker, said_goodbye, severed
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import ENDS, Evidence, Execution, Run, Step
from tests.chaos.incidents import Incident
from tests.chaos.stand import IDEMPOTENCY_TTL

_CLOSE = 0.05
"""Seconds within which two moments, written down by two processes, may be told in the wrong order."""

_AFTERWARDS = 15.0
"""Seconds after a fault's end in which its consequences are its own: a stopped agent goes on, and has to be told."""

_TOLD_WITHIN = 8.0
"""Seconds within which a run whose task is another's by now is stopped, once its agent can reach the ledger."""

_ENDING = frozenset({"completed", "failed", "cancelled", "timed_out", "dead_lettered"})
"""Outcomes of an execution that end its task."""


def runs_are_logged(evidence: Evidence) -> Iterator[Finding]:
    """Each run is an execution of the ledger's, by the agent that claimed it, and each execution ran once at most."""
    for task_id, runs in evidence.runs.items():
        for run in runs:
            execution = evidence.execution(task_id, run.execution)
            if execution is None:
                yield Finding("wrong", task_id, f"execution {run.execution} ran, and the ledger does not know of it")
            elif (run.incarnation, run.agent) != (execution.incarnation, execution.agent_pid):
                says = f"incarnation {run.incarnation} (pid {run.agent}) ran it, not {execution.incarnation}"
                yield Finding("wrong", task_id, f"execution {run.execution}: {says} (pid {execution.agent_pid})")
        twice = [number for number, many in Counter(run.execution for run in runs).items() if many > 1]
        if twice:
            yield Finding("doubled", task_id, f"executions {twice} ran more than once each")


def completed_has_run(evidence: Evidence) -> Iterator[Finding]:
    """A result comes from a run, and from the one that settled."""
    for task in evidence.tasks.values():
        if task.status != "completed" or not task.work_type.startswith("chaos.") or task.follows:
            continue
        settled = [e.execution for e in evidence.executions.get(task.task_id, []) if e.outcome == "completed"]
        said = task.result.get("execution") if isinstance(task.result, dict) else None
        ran = {run.execution for run in evidence.runs.get(task.task_id, []) if run.ended}
        if settled != [task.execution] or said != task.execution:
            yield Finding(
                "wrong", task.task_id, f"execution {task.execution}: settled by {settled}, its result is of {said}"
            )
        elif task.execution not in ran:
            yield Finding("wrong", task.task_id, f"execution {task.execution} settled, and nobody saw it run")


def nothing_runs_after_its_end(evidence: Evidence) -> Iterator[Finding]:
    """A settled task is never executed again; an agent that was cut off may begin what it held."""
    for task_id, runs in evidence.runs.items():
        for run in runs:
            end = _end_at(evidence.history.get(task_id, []), run.began)
            late = end is not None and run.began - end.at > _CLOSE
            if end is not None and late and not _cuts(evidence, run, run.began):
                yield Finding(
                    "doubled", task_id, f"execution {run.execution} began {run.began - end.at:.2f} s after its end"
                )


def none_is_beside_another(evidence: Evidence) -> Iterator[Finding]:
    """A task is executed by one agent at a time, while that agent can reach the ledger."""
    for task_id, runs in evidence.runs.items():
        for earlier, later in itertools.pairwise(runs):
            beside = earlier.last - later.began
            if beside <= _CLOSE:
                continue
            cuts = _cuts(evidence, earlier, later.began) + _cuts(evidence, later, later.began)
            who = [evidence.program_of(run.agent, run.began) for run in (earlier, later)]
            both = f"{earlier.execution} ({who[0]}) and {later.execution} ({who[1]})"
            if not cuts:
                yield Finding("doubled", task_id, f"executions {both} were under way together for {beside:.2f} s")
                continue
            over = max(math.inf if cut.ended is None else cut.ended for cut in cuts)
            too_long = min(earlier.last, later.last) - max(over, later.began)
            if too_long > _TOLD_WITHIN:
                yield Finding("wrong", task_id, f"{both} went on for {too_long:.1f} s after they could be told")


def only_one_settles(evidence: Evidence) -> Iterator[Finding]:
    """Between two replays one execution ends the task."""
    for task_id, executions in evidence.executions.items():
        replays = [step.at for step in evidence.history.get(task_id, []) if step.is_replay]
        lives = Counter(sum(at <= e.claimed_at for at in replays) for e in executions if e.outcome in _ENDING)
        if any(many > 1 for many in lives.values()):
            yield Finding("doubled", task_id, f"was settled {dict(lives)} times in its lives")


def outcomes_are_explained(evidence: Evidence) -> Iterator[Finding]:
    """No execution comes to an end that nobody has caused."""
    for task_id, executions in evidence.executions.items():
        task = evidence.tasks.get(task_id)
        for execution in executions:
            if task is not None and (why := _unexplained(evidence, task.work_type, execution)):
                yield Finding("wrong", task_id, f"{task.work_type}: execution {execution.execution} {why}")


def one_task_a_request(evidence: Evidence) -> Iterator[Finding]:
    """While a task is in flight, and for a while after its end, its request_id is its own."""
    by_request: dict[str, list[str]] = {}
    for task in evidence.tasks.values():
        if not task.follows:
            by_request.setdefault(task.request_id, []).append(task.task_id)
    for request_id, task_ids in by_request.items():
        for task_id in task_ids:
            for other in task_ids:
                if other != task_id and _is_within(evidence, other, evidence.tasks[task_id].created_at):
                    yield Finding("doubled", task_id, f"has the request_id {request_id}, which was {other}'s")


def _unexplained(evidence: Evidence, work_type: str, execution: Execution) -> str:
    agent = evidence.program_of(execution.agent_pid, execution.claimed_at)
    start, end = execution.claimed_at, execution.finished_at or execution.claimed_at
    match execution.outcome:
        case None:
            return "has no outcome"
        case "timed_out" | "retried" if work_type in PUBLISHERS:
            return "" if no_broker(evidence, execution) else f"was {execution.outcome}, and it had its broker"
        case "timed_out":
            return "timed out"
        case "retried" if work_type != "chaos.flaky":
            return "was retried"
        case "crashed" if work_type != "chaos.die":
            killed = evidence.incidents_of(agent, {"child_kill"}, start, end, slack=2)
            return "" if killed else f"of {agent} crashed, and nobody killed it"
        case "agent_lost":
            is_gone = severed(evidence, agent, start, end, slack=_AFTERWARDS) or said_goodbye(
                evidence, agent, execution
            )
            return "" if is_gone else f"was taken from {agent}, alive"
    return ""


def _cuts(evidence: Evidence, run: Run, until: float) -> list[Incident]:
    """What cut the agent of a run off from the ledger, between its claim and that moment."""
    execution = evidence.execution(run.task_id, run.execution)
    since = execution.claimed_at if execution else run.began - _AFTERWARDS
    agent = evidence.program_of(run.agent, run.began)
    return severed(evidence, agent, since, until)


def _end_at(steps: list[Step], at: float) -> Step | None:
    """The end in which the task was at that moment, or None."""
    state = [step for step in steps if step.at <= at]
    return state[-1] if state and state[-1].status in ENDS else None


def _is_within(evidence: Evidence, task_id: str, at: float) -> bool:
    """Whether a task was in flight at that moment, or had ended too short a while before."""
    steps = [step for step in evidence.history.get(task_id, []) if step.at <= at]
    if not steps:
        return False
    return steps[-1].status not in ENDS or at - steps[-1].at < IDEMPOTENCY_TTL - 1
