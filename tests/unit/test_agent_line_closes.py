"""What comes back from the pool of an agent that ends is not lined up again: its pool takes nothing more."""

from __future__ import annotations

from typing import Any

import pytest

from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.runs import Runs
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
