"""What was done explains what came of it, as far as the guarantees allow."""

from __future__ import annotations

from tests.chaos.evidence import Evidence, Execution
from tests.chaos.incidents import Incident
from tests.chaos.plan import CONTENTS, THREADED
from tests.chaos.stand import HEARTBEAT, OFFLINE_AFTER

PUBLISHERS = frozenset({"chaos.chain", "chaos.chord"})
"""Work that publishes in its middle, and so needs the broker as well."""

_GIVEN_UP = "code 75"
"""How an agent ends of which a thread cannot be stopped (EX_TEMPFAIL)."""

_GIVES_UP_WITHIN = 45.0
_BACK_WITHIN = 5.0
"""Seconds within which an agent has its session again, once Postgres is back."""

_STANDS_STILL_FOR = OFFLINE_AFTER - HEARTBEAT
"""Seconds for which an agent may be stopped and is not taken for dead: it may have been about to say that it lives."""

_SEEN_WITHIN = 20.0
"""Seconds until its end is seen: nobody looks while a fault has it."""


def wiped_since(evidence: Evidence, at: float) -> bool:
    """Whether the broker lost everything after that moment."""
    return any(i.kind == "broker_wipe" and (i.ended is None or i.ended >= at) for i in evidence.incidents)


def no_broker(evidence: Evidence, execution: Execution) -> bool:
    """Whether a run could not publish, for some of its time."""
    start, end = execution.claimed_at, execution.finished_at or execution.claimed_at
    agent = evidence.program_of(execution.agent_pid, start)
    broken = {"cut", "refuse", "silence", "half_open", "delay", "swallow_confirm"}
    ways = [i for i in evidence.incidents_of(agent, broken, start, end, slack=60) if i.detail != "postgres"]
    kinds = {i.kind for i in evidence.incidents if i.target == "broker" and i.touches(start, end, slack=10)}
    return bool(ways) or any(kind.startswith("broker_") for kind in kinds)


def severed(evidence: Evidence, program: str, start: float, end: float, *, slack: float = 0.0) -> list[Incident]:
    """What kept a program from the ledger, or from going on at all, for longer than it may, between two moments."""
    found = evidence.incidents_of(program, {"agent_kill", "exit"}, start, end, slack=slack)
    stops = evidence.incidents_of(program, {"agent_stop"}, start, end, slack=slack)
    found += [i for i in stops if i.seconds > _STANDS_STILL_FOR]
    ways = evidence.incidents_of(program, {"refuse", "silence", "half_open"}, start, end, slack=slack)
    found += [i for i in ways if "postgres" in i.detail]
    return found + _slow_to_return(evidence, program, start, end, slack)


def said_goodbye(evidence: Evidence, program: str, execution: Execution) -> bool:
    """Whether an agent ended a moment after: what it had just claimed it left to others before, uncounted.

    One that is restarted drains, and may be killed by its own work meanwhile.
    """
    end = execution.finished_at or execution.claimed_at
    exits = evidence.incidents_of(program, {"exit"}, end, end + _SEEN_WITHIN)
    restarts = evidence.incidents_of(program, {"agent_restart"}, end, end, slack=_BACK_WITHIN)
    return any(i.began >= end for i in exits) or any(
        execution.started_at is None or "code 0" not in restart.detail for restart in restarts
    )


def _slow_to_return(evidence: Evidence, program: str, start: float, end: float, slack: float) -> list[Incident]:
    """Where its session broke, or was no use, while the way to Postgres was slow or it stood still itself.

    A new session takes a dozen round trips: over a slow way that alone is more than the grace of two seconds. (A
    session that is there stays, however slow.)
    """
    own = evidence.incidents_of(program, {"cut", "swallow_commit"}, start, end, slack=slack)
    breaks = [i for i in own if i.kind != "cut" or "postgres" in i.detail]
    breaks += [i for i in evidence.incidents if i.kind in {"postgres_kill", "postgres_restart"}]
    hangs = [i for i in evidence.incidents if i.kind == "postgres_stop"]
    slow = evidence.incidents_of(program, {"delay"}, start, end, slack=slack)
    stops = evidence.incidents_of(program, {"agent_stop"}, start, end, slack=slack)
    causes = [(i, breaks) for i in slow if "postgres" in i.detail] + [(i, breaks + hangs) for i in stops]
    return [i for i, of in causes if any(b.touches(i.began, i.ended or end, slack=_BACK_WITHIN) for b in of)]


def disturbed(evidence: Evidence, agent: str, execution: Execution) -> bool:
    """Whether anything was done to an agent, or to what it needs, while it held an execution or shortly before.

    Or it ended itself a moment later, over another one's thread; what made it do so is another rule's.
    """
    start, end = execution.claimed_at, execution.finished_at or execution.claimed_at
    concerned = (i for i in evidence.incidents if i.target in {agent, "broker", "postgres"} and i.happened)
    if any(i.kind not in CONTENTS and i.touches(start, end, slack=_GIVES_UP_WITHIN) for i in concerned):
        return True
    exits = evidence.incidents_of(agent, {"exit"}, end, end + _SEEN_WITHIN)
    if any(i.detail == _GIVEN_UP and i.began >= end for i in exits):
        return True
    return any(
        run.began <= end and run.last >= start and evidence.program_of(run.agent, run.began) == agent
        for task_id, runs in evidence.runs.items()
        if task_id in evidence.tasks and evidence.tasks[task_id].work_type == "chaos.die"
        for run in runs
    )


def ended_by_its_work(evidence: Evidence, exit_: Incident) -> bool:
    """Whether an agent's threads took it along: by dying, or because nobody can stop one."""
    if exit_.target not in THREADED:
        return False
    if exit_.detail == _GIVEN_UP:
        asked = [
            s for s in evidence.promises.said if s.verb == "cancel" and 0 <= exit_.began - s.at <= _GIVES_UP_WITHIN
        ]
        return bool(asked or severed(evidence, exit_.target, exit_.began, exit_.began, slack=_GIVES_UP_WITHIN))
    deadly = [
        run
        for task_id, runs in evidence.runs.items()
        if task_id in evidence.tasks and evidence.tasks[task_id].work_type == "chaos.die"
        for run in runs
        if not run.ended and 0 <= exit_.began - run.last <= _SEEN_WITHIN
    ]
    return any(evidence.program_of(run.agent, run.began) == exit_.target for run in deadly)
