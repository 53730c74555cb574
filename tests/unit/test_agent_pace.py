"""How long runs take decides what an agent holds, and what goes together."""

from __future__ import annotations

import math

import pytest

from chiffon.agent.pace import LEAST, SEEN, Pace


def paced(seconds: float, *, ahead: float = 0.02, runs: int = SEEN) -> Pace:
    pace = Pace(ahead)
    for _ in range(runs):
        pace.ended("a", seconds)
    return pace


def test_of_a_work_type_that_is_not_known_anything_may_come() -> None:
    pace = paced(0.0001, runs=SEEN - 1)
    assert pace.expected("a") == math.inf
    assert not pace.is_short("a")
    assert pace.share("a") == 1.0


def test_one_that_was_short_often_enough_is_short() -> None:
    pace = paced(0.001)
    assert pace.is_short("a")
    assert pace.share("a") == pytest.approx(0.05)
    assert not pace.is_short("b")


def test_a_single_long_run_ends_that_at_once() -> None:
    pace = paced(0.001)
    pace.ended("a", 1.0)
    assert not pace.is_short("a")
    assert pace.share("a") == 1.0


def test_a_run_that_goes_on_counts_before_it_ends() -> None:
    pace = paced(0.001)
    pace.lasts("a", 0.5)
    assert not pace.is_short("a")


def test_a_long_run_is_forgotten_little_by_little() -> None:
    pace = paced(0.001)
    pace.ended("a", 1.0)
    for _ in range(10):
        pace.ended("a", 0.001)
    assert not pace.is_short("a")
    for _ in range(50):
        pace.ended("a", 0.001)
    assert pace.is_short("a")


def test_the_shortest_counts_for_something() -> None:
    assert paced(0.0).share("a") == LEAST


def test_without_work_ahead_every_task_takes_a_slot() -> None:
    assert paced(0.0001, ahead=0.0).share("a") == 1.0
