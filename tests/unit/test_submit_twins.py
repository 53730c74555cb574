"""Twins of one batch: whom each takes after, known by its place and not by its id."""

from __future__ import annotations

import pytest

from chiffon.dispatch.submit import _origins, _twin
from chiffon.domain.tasks import Accepted, Duplicate, IdTaken, KeyReused, NewTask


def task(names: str, fingerprint: str = "same") -> NewTask:
    task_id, request_id = names
    return NewTask(task_id=task_id, request_id=request_id, trace_id="a" * 32, work_type="echo", fingerprint=fingerprint)


@pytest.mark.parametrize(
    ("names", "origins"),
    [
        ([], []),
        (["ax", "by", "cz"], [0, 1, 2]),
        (["ax", "bx", "ay"], [0, 0, 0]),
        (["ax", "ax"], [0, 0]),
        (["ax", "bx", "by"], [0, 0, 2]),
        (["ax", "by", "bx"], [0, 1, 0]),
    ],
)
def test_each_takes_after_the_first_that_shares_an_id(names: list[str], origins: list[int]) -> None:
    assert _origins([task(name) for name in names]) == origins


def test_an_equal_twin_is_a_duplicate() -> None:
    assert _twin(task("bx"), task("ax"), Accepted("a")) == Duplicate("a")


def test_another_payload_is_refused_by_what_it_shares() -> None:
    assert _twin(task("bx", "other"), task("ax"), Accepted("a")) == KeyReused("a")
    assert _twin(task("ay", "other"), task("ax"), Accepted("a")) == IdTaken("a")


def test_a_twin_of_a_duplicate_is_one_too() -> None:
    assert _twin(task("bx"), task("ax"), Duplicate("before")) == Duplicate("before")
