"""Find: tasks, work types and agents, as their readers see them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from datetime import datetime

from chiffon.domain.errors import AgentNotFound, TaskNotFound
from chiffon.domain.ids import is_task_id
from chiffon.domain.views import AgentView, TaskFilter, TaskView
from chiffon.ledger import queries
from chiffon.ledger.connect import Ledger

PAGE_BYTES = 16_000_000
"""Bytes of parameters after which a page of tasks ends: as values of Python, and as the answer, they are more."""


@dataclass(frozen=True)
class Page:
    """Some tasks of a list, newest first. ``next_after``: what the next page comes after; None at the end."""

    tasks: Sequence[TaskView]
    next_after: tuple[datetime, str] | None


def find_task(ledger: Ledger, task_id: str) -> TaskView:
    """A task with its result and executions. Raises TaskNotFound, LedgerUnavailable."""
    check_task_id(task_id)
    with ledger.transaction() as cursor:
        found = queries.task(cursor, task_id)
    if found is None:
        raise TaskNotFound(f"there is no task {task_id}")
    return found


def check_task_id(task_id: str) -> None:
    """Raise TaskNotFound for a text that names no task: nobody has to ask Postgres, which would not take it."""
    if not is_task_id(task_id):
        raise TaskNotFound(f"there is no task {task_id!a}")


def find_tasks(ledger: Ledger, wanted: TaskFilter, *, limit: int) -> Page:
    """Up to ``limit`` tasks that fit, fewer if their parameters are large. Raises LedgerUnavailable."""
    with ledger.transaction() as cursor:
        page, has_more = queries.tasks(cursor, wanted, limit=limit, max_bytes=PAGE_BYTES)
    return Page(page, (page[-1].created_at, page[-1].task_id) if has_more else None)


def find_agents(ledger: Ledger, *, offline_after: float) -> list[AgentView]:
    """The newest life of every agent. Raises LedgerUnavailable."""
    with ledger.transaction() as cursor:
        return queries.agents(cursor, offline_after=offline_after)


def find_agent(ledger: Ledger, agent_id: str, *, offline_after: float) -> AgentView:
    """The newest life of one agent. Raises AgentNotFound, LedgerUnavailable."""
    if is_task_id(agent_id):
        with ledger.transaction() as cursor:
            found = queries.agents(cursor, offline_after=offline_after, agent_id=agent_id)
        if found:
            return found[0]
    raise AgentNotFound(f"there is no agent {agent_id!a}: GET /agents lists them")


def agents_online(ledger: Ledger, *, offline_after: float) -> dict[str, int]:
    """By work type, how many living agents know it. Raises LedgerUnavailable."""
    with ledger.transaction() as cursor:
        return queries.online_for(cursor, offline_after=offline_after)
