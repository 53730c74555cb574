"""An incarnation is dead, or mute, when it was found so for the grace, at several looks on one unbroken session."""

from __future__ import annotations

import pytest

from chiffon.dispatch.sweep import Watch
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(2.0, 1.0, clock)


def test_one_look_proves_nothing(watch: Watch) -> None:
    assert watch.look({7}) == set()


def test_looks_for_less_than_the_grace_prove_nothing(watch: Watch, clock: Clock) -> None:
    assert looks(watch, clock, 1.0, 0.9) == [set(), set(), set()]


def test_a_lock_that_stays_free_for_the_grace_is_a_death(watch: Watch, clock: Clock) -> None:
    assert looks(watch, clock, 0.5, 0.5, 0.5, 0.5) == [set(), set(), set(), set(), {7}]


def test_a_death_is_told_again_as_long_as_it_is_seen(watch: Watch, clock: Clock) -> None:
    assert looks(watch, clock, 1.0, 1.0)[-1] == {7}
    assert [watch.look({7}), watch.look(set())] == [{7}, set()]


def test_a_lock_that_was_held_in_between_starts_anew(watch: Watch, clock: Clock) -> None:
    looks(watch, clock, 1.0, 0.5)
    watch.look(set())
    clock.now += 1.0
    assert looks(watch, clock, 1.0, 1.0) == [set(), set(), {7}]


def test_each_incarnation_has_a_time_of_its_own(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 1.0
    watch.look({7, 8})
    clock.now += 1.0
    assert watch.look({7, 8}) == {7}
    clock.now += 1.0
    assert watch.look({7, 8}) == {7, 8}


def test_a_time_without_a_look_proves_no_more_than_a_short_one(watch: Watch, clock: Clock) -> None:
    """Postgres hung, and nobody could take his lock: once it goes on, the living have some of the grace for it."""
    assert looks(watch, clock, 60.0) == [set(), set()]
    clock.now += 0.9
    assert watch.look({7}) == set()
    clock.now += 0.1
    assert watch.look({7}) == {7}


def test_a_death_is_seen_though_each_look_is_late(watch: Watch, clock: Clock) -> None:
    assert looks(watch, clock, 5.0, 5.0) == [set(), set(), {7}]


def test_a_broken_session_proves_nothing_of_what_was_seen_on_it(watch: Watch, clock: Clock) -> None:
    looks(watch, clock, 1.0, 0.9)
    watch.forget()
    clock.now += 1.0
    assert looks(watch, clock, 1.0, 1.0) == [set(), set(), {7}]


def test_even_without_a_grace_one_look_is_not_enough(clock: Clock) -> None:
    watch = Watch(0.0, 1.0, clock)
    assert watch.look({7}) == set()
    assert watch.look({7}) == {7}


def looks(watch: Watch, clock: Clock, *apart: float) -> list[set[int]]:
    """What a look says of one that is found each time, and what each later one does, so many seconds after the last."""
    said = [watch.look({7})]
    for seconds in apart:
        clock.now += seconds
        said.append(watch.look({7}))
    return said
