"""A queue has lost something when it was empty at every look for some time, while the ledger has work for it."""

from __future__ import annotations

import pytest

from chiffon.dispatch.lost import EmptyQueues
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def queues(clock: Clock) -> EmptyQueues:
    return EmptyQueues(10.0, clock)


def test_a_queue_that_stays_empty_is_suspected_and_not_before(queues: EmptyQueues, clock: Clock) -> None:
    assert queues.look({"a": 0, "b": 3}) == []
    clock.now += 9
    assert queues.look({"a": 0, "b": 3}) == []
    clock.now += 1
    assert queues.look({"a": 0, "b": 3}) == ["a"]


@pytest.mark.parametrize("between", [{"a": 1}, {}], ids=["it had one", "nobody could say"])
def test_a_look_that_does_not_find_it_empty_begins_anew(
    queues: EmptyQueues, clock: Clock, between: dict[str, int]
) -> None:
    queues.look({"a": 0})
    clock.now += 9
    assert queues.look(between) == []
    clock.now += 9
    assert queues.look({"a": 0}) == []
