"""Twins of one batch: whom each takes after, known by its place and not by its id."""

from __future__ import annotations

import pytest

from chiffon.dispatch.twins import _firsts
from chiffon.domain.tasks import NewTask


def task(names: str) -> NewTask:
    task_id, request_id = names
    return NewTask(task_id=task_id, request_id=request_id, trace_id="a" * 32, work_type="echo", fingerprint="")


@pytest.mark.parametrize(
    ("names", "origins"),
    [
        ([], []),
        (["ax", "by", "cz"], [0, 1, 2]),
        (["ax", "bx", "ay"], [0, 0, 0]),
        (["ax", "ax"], [0, 0]),
        (["ax", "bx", "by"], [0, 0, 1]),
        (["ax", "by", "bx"], [0, 1, 1]),
    ],
)
def test_each_takes_after_the_first_that_shares_an_id(names: list[str], origins: list[int]) -> None:
    assert list(_firsts([task(name) for name in names], range(len(names))).values()) == origins
