"""What comes back from the pool of an agent that ends is not lined up again: its pool takes nothing more."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.line import Line
from chiffon.agent.pace import SEEN, Pace
from chiffon.agent.runs import Runs
from chiffon.agent.slate import Slates
from chiffon.config import Settings
from tests.claimed import Books, claimed


@pytest.mark.parametrize("ends", [False, True])
def test_what_comes_back_while_an_agent_ends_is_given_back_at_once(ends: bool) -> None:
    books = Books()
    turns: list[Any] = []
    pace = Pace(0.0)
    line = Line(turns.append, pace, None, lambda: 1)
    parts: list[Any] = [None, Settings(), books, None, pace, line, 1]
    if ends:
        Runs(*parts).give_back_waiting("its agent ends")
    line._come_back([claimed(books)])
    assert books.verdicts() == (["GivenBack"] if ends else [])
    assert bool(turns) is not ends


def test_who_waits_behind_one_that_runs_is_given_back_when_an_agent_ends() -> None:
    books, slates = Books(), Slates(1)
    pace = Pace(0.1)
    for _ in range(SEEN):
        pace.ended("echo", 0.001)
    pool = SimpleNamespace(apply_async=lambda *_, **__: None)
    line = Line(lambda turn: turn.execute_using_pool(pool), pace, slates, lambda: 1)
    for name in ("runs", "waits"):
        line.join(claimed(books, task_id=name))
    line.move()
    slates[0].begin(0)
    parts: list[Any] = [None, Settings(), books, None, pace, line, 1]
    Runs(*parts).give_back_waiting("its agent ends")
    [finished] = books.settlements()
    assert (finished.settlement.task_id, books.verdicts()) == ("waits", ["GivenBack"])
