"""The registry of agents: who lives, and what each can do."""

from __future__ import annotations

from collections.abc import Sequence

from chiffon.ledger.connect import Cursor
from chiffon.ledger.failures import LostRace
from chiffon.ledger.sweeps import LOCK_CLASS

# name: register  -- (new) -> online; draws the incarnation, and locks it for the life of this session
_REGISTER = """
INSERT INTO agents (agent_id, hostname, pid, backend_pid, slots, queues, work_types, version)
VALUES (%(agent_id)s, %(hostname)s, %(pid)s, pg_backend_pid(), %(slots)s, %(queues)s, %(work_types)s, %(version)s)
RETURNING incarnation
"""
_LOCK = "SELECT pg_try_advisory_lock(%(class)s, %(incarnation)s)"
_UNLOCK = "SELECT pg_advisory_unlock(%(class)s, %(incarnation)s)"

# name: rejoin  -- offline | online -> online, for an incarnation that has its lock again
_REJOIN = """
UPDATE agents SET backend_pid = pg_backend_pid(), last_heartbeat_at = clock_timestamp(), stopped_at = NULL
 WHERE incarnation = %(incarnation)s
"""

# name: beat  -- online: still there
_BEAT = """
UPDATE agents SET last_heartbeat_at = clock_timestamp(), stopped_at = NULL, queues = %(queues)s, slots = %(slots)s
 WHERE incarnation = %(incarnation)s
"""

# name: drain  -- online -> draining: takes nothing new
_DRAIN = "UPDATE agents SET draining_at = clock_timestamp() WHERE incarnation = %(incarnation)s AND draining_at IS NULL"

# name: leave  -- online | draining -> offline, at once
_LEAVE = """
UPDATE agents SET stopped_at = clock_timestamp(), last_heartbeat_at = clock_timestamp()
 WHERE incarnation = %(incarnation)s
"""

# name: still held  -- reads the executions that the ledger says this incarnation runs
_STILL_HELD = """
SELECT task_id, execution, request_id, trace_id FROM tasks WHERE incarnation = %(incarnation)s AND status = 'running'
"""


def register(
    cursor: Cursor,
    *,
    agent_id: str,
    hostname: str,
    pid: int,
    slots: int,
    queues: Sequence[str],
    work_types: Sequence[str],
    version: str,
) -> int:
    """Enter a new life of an agent, and lock it on this session; its incarnation, once this is committed.

    Raises LostRace: somebody holds the lock of that number (a restored backup draws it twice); the next is another.
    """
    cursor.execute(
        _REGISTER,
        {
            "agent_id": agent_id,
            "hostname": hostname,
            "pid": pid,
            "slots": slots,
            "queues": list(queues),
            "work_types": list(work_types),
            "version": version,
        },
    )
    incarnation = int(cursor.fetchone()[0])
    if not lock(cursor, incarnation):
        raise LostRace(f"the lock of incarnation {incarnation} is held already")
    return incarnation


def lock(cursor: Cursor, incarnation: int) -> bool:
    """Take an incarnation's lock for the life of this session; False if another session holds it."""
    cursor.execute(_LOCK, {"class": LOCK_CLASS, "incarnation": incarnation})
    return bool(cursor.fetchone()[0])


def rejoin(cursor: Cursor, incarnation: int) -> set[tuple[str, int]] | None:
    """Be there again, on a new session that holds the lock; the executions that are still this incarnation's own.

    None, and the lock is given back: the ledger has no such incarnation.
    """
    cursor.execute(_REJOIN, {"incarnation": incarnation})
    if not cursor.rowcount:
        cursor.execute(_UNLOCK, {"class": LOCK_CLASS, "incarnation": incarnation})
        return None
    return set(still_held(cursor, incarnation))


def beat(cursor: Cursor, incarnation: int, *, queues: Sequence[str], slots: int) -> None:
    """Say that the agent lives."""
    cursor.execute(_BEAT, {"incarnation": incarnation, "queues": list(queues), "slots": slots})


def drain(cursor: Cursor, incarnation: int) -> None:
    """Say that the agent takes nothing new."""
    cursor.execute(_DRAIN, {"incarnation": incarnation})


def leave(cursor: Cursor, incarnation: int) -> None:
    """Say that the agent is gone."""
    cursor.execute(_LEAVE, {"incarnation": incarnation})


def still_held(cursor: Cursor, incarnation: int) -> dict[tuple[str, int], tuple[str, str]]:
    """The executions (task id, number) that the ledger says this incarnation runs; their request and trace ids."""
    cursor.execute(_STILL_HELD, {"incarnation": incarnation})
    return {(task_id, number): (request_id, trace_id) for task_id, number, request_id, trace_id in cursor.fetchall()}
