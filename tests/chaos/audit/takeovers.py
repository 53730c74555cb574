"""The work of the dead: how soon another agent claims it, where nothing else was wrong."""

from __future__ import annotations

import itertools
from collections.abc import Iterator

from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence, Execution
from tests.chaos.incidents import Incident
from tests.chaos.plan import API, CONTENTS

PROBE = "probe"
"""The detail of a kill that happens at rest, where no slot is taken by other work."""

TAKEN_OVER_WITHIN = 5.0
"""Seconds, as guaranteed, from the death of a process on a host that can be reached."""


def work_of_the_dead_is_taken_over_soon(evidence: Evidence) -> Iterator[Finding]:
    """Another agent starts it within the time that is guaranteed."""
    for task_id, kill, seconds in _taken_over(evidence):
        if PROBE in kill.detail and seconds > TAKEN_OVER_WITHIN:
            yield Finding("wrong", task_id, f"was claimed again only {seconds:.1f} s after {kill.target} was killed")


def takeovers(evidence: Evidence) -> Iterator[float]:
    """Seconds from an agent's death to the next claim of its work, where nothing else was wrong meanwhile."""
    for _, _, seconds in _taken_over(evidence):
        yield seconds


def _taken_over(evidence: Evidence) -> Iterator[tuple[str, Incident, float]]:
    for task_id, executions in evidence.executions.items():
        for dead, heir in itertools.pairwise(executions):
            if dead.outcome == "agent_lost" and (kill := _killed(evidence, dead)) and _is_alone(evidence, kill, heir):
                yield task_id, kill, heir.claimed_at - kill.began


def _killed(evidence: Evidence, dead: Execution) -> Incident | None:
    agent = evidence.program_of(dead.agent_pid, dead.claimed_at)
    kills = evidence.incidents_of(agent, {"agent_kill"}, dead.claimed_at, dead.finished_at or dead.claimed_at)
    return next((kill for kill in kills if kill.began >= dead.claimed_at), None)


def _is_alone(evidence: Evidence, kill: Incident, heir: Execution) -> bool:
    others = (i for i in evidence.incidents if i != kill and i.target != API and i.kind not in CONTENTS)
    return not any(other.touches(kill.began, heir.claimed_at) for other in others)
