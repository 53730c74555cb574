"""A pool that closes because its processes die too often ends its agent: it would claim work that nobody begins."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.pool import RUN
from celery.concurrency.prefork import TaskPool

from chiffon.agent.consumer import LedgerConsumer
from chiffon.agent.killing import kill
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.runs import Runs
from chiffon.config import Settings
from tests.claimed import Books, claimed, real_pool


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    """A real pool that bears one death a second."""
    with real_pool(max_restarts=1) as found:
        yield found


def runs_on(pool: TaskPool, books: Books) -> Runs:
    """The runs of an agent that has one claimed task in hand."""
    pace = Pace(0.0)
    parts: list[Any] = [books, None, pace, Line(lambda turn: None, pace, None, lambda: 1), 1]
    runs = Runs(SimpleNamespace(pool=pool), Settings(), *parts)
    request = claimed(books)
    runs._held[request.id, 1] = request
    return runs


@pytest.mark.parametrize("drains", [False, True])
def test_an_agent_whose_pool_has_closed_gives_back_and_ends_unless_it_ends_anyway(pool: TaskPool, drains: bool) -> None:
    books = Books()
    ended: list[bool] = []
    agent: Any = SimpleNamespace(
        _runs=runs_on(pool, books),
        _intake=SimpleNamespace(look=lambda shares: None),
        _returning=SimpleNamespace(look=lambda: None),
        _drain=SimpleNamespace(begun=drains),
        _abandon=lambda: ended.append(True),
    )
    while not ended and pool._pool._state == RUN:
        for process in pool._pool._pool:
            kill(process.pid)
        LedgerConsumer._on_tick(agent)
    assert ended == ([] if drains else [True])
    assert books.verdicts() == ([] if drains else ["GivenBack"])
