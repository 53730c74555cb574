"""Who goes to a process of the pool together with whom."""

from __future__ import annotations

from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError

from chiffon.agent.line import Line
from chiffon.agent.pace import SEEN, Pace
from chiffon.agent.slate import Slates
from chiffon.agent.trace import do_several
from chiffon.domain.verdicts import Crashed
from tests.claimed import Books, claimed

SHORT = 0.001
"""Seconds that a run takes: so many go into one hand-over."""


class Pool:
    """Notes who was given to its one process together. ``die``: by hand-over, has it die with that place begun."""

    def __init__(self, slates: Slates) -> None:
        self.given: list[list[str]] = []
        self.die: list[Callable[[int], None]] = []
        self._slates = slates

    def apply_async(self, target: Any, args: Any, *, error_callback: Any, **_: Any) -> None:
        jobs = args[1] if target is do_several else [args]
        self.given.append([job[1] for job in jobs])

        def die(place: int) -> None:
            self._slates[args[0]].begin(place)
            error_callback(SimpleNamespace(exception=WorkerLostError("gone"), traceback=""))

        self.die.append(die)


class Standing:
    """The line before a pool that takes whatever it is given; its work is known to be short."""

    def __init__(self) -> None:
        self.books = Books()
        slates = Slates(8)
        self.pool = Pool(slates)
        pace = Pace(0.1)
        for _ in range(SEEN):
            pace.ended("echo", SHORT)
        self._line = Line(lambda turn: turn.execute_using_pool(self.pool), pace, slates, lambda: 1)

    def join(self, *crashes: int) -> None:
        """So many tasks come, which have crashed so often before."""
        for number, many in enumerate(crashes):
            self._line.join(claimed(self.books, task_id=f"task {number}", crashes=many))
        self._line.move()


def test_tasks_that_are_short_go_together() -> None:
    standing = Standing()
    standing.join(0, 0, 0)
    assert standing.pool.given == [["task 0", "task 1", "task 2"]]


@pytest.mark.parametrize(
    ("crashes", "given"),
    [
        ((1, 0, 0), [["task 0"], ["task 1", "task 2"]]),
        ((0, 0, 1, 0, 0), [["task 0", "task 1"], ["task 2"], ["task 3", "task 4"]]),
        ((0, 0, 2), [["task 0", "task 1"], ["task 2"]]),
        ((1, 1), [["task 0"], ["task 1"]]),
    ],
)
def test_after_one_crash_a_task_never_shares_a_hand_over(crashes: tuple[int, ...], given: list[list[str]]) -> None:
    standing = Standing()
    standing.join(*crashes)
    assert standing.pool.given == given


def test_those_beside_one_that_took_its_process_along_are_not_charged_and_go_alone() -> None:
    standing = Standing()
    standing.join(0, 0, 0)
    standing.pool.die[0](0)
    [settlement] = [finished.settlement for finished in standing.books.settlements()]
    assert (settlement.task_id, type(settlement.verdict)) == ("task 0", Crashed)
    assert standing.pool.given[1:] == [["task 1"], ["task 2"]]
