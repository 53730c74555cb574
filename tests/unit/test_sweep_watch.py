"""An incarnation is dead, or mute, when it was found so at two looks, some time apart, on one unbroken session."""

from __future__ import annotations

import pytest

from chiffon.dispatch.sweep import Watch
from tests.clock import Clock


@pytest.fixture
def clock() -> Clock:
    return Clock()


@pytest.fixture
def watch(clock: Clock) -> Watch:
    return Watch(2.0, clock)


def test_one_look_proves_nothing(watch: Watch) -> None:
    assert watch.look({7}) == set()


def test_two_looks_too_close_together_prove_nothing(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 1.9
    assert watch.look({7}) == set()


def test_a_lock_that_stays_free_for_the_grace_is_a_death(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 2.0
    assert watch.look({7}) == {7}


def test_a_death_is_told_again_as_long_as_it_is_seen(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 2.0
    assert [watch.look({7}), watch.look({7}), watch.look(set())] == [{7}, {7}, set()]


def test_a_lock_that_was_held_in_between_starts_anew(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 1.5
    watch.look(set())
    clock.now += 1.5
    assert watch.look({7}) == set()
    clock.now += 2.0
    assert watch.look({7}) == {7}


def test_each_incarnation_has_a_time_of_its_own(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 1.0
    watch.look({7, 8})
    clock.now += 1.0
    assert watch.look({7, 8}) == {7}
    clock.now += 1.0
    assert watch.look({7, 8}) == {7, 8}


def test_a_broken_session_proves_nothing_of_what_was_seen_on_it(watch: Watch, clock: Clock) -> None:
    watch.look({7})
    clock.now += 60.0
    watch.forget()
    assert watch.look({7}) == set()
    clock.now += 2.0
    assert watch.look({7}) == {7}


def test_even_without_a_grace_one_look_is_not_enough(clock: Clock) -> None:
    watch = Watch(0.0, clock)
    assert watch.look({7}) == set()
    assert watch.look({7}) == {7}
