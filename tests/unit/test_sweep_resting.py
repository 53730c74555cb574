"""A step of the sweep that fails again and again is left out for a while."""

from __future__ import annotations

from chiffon.dispatch.resting import Resting


def test_a_step_rests_from_its_second_failure_in_a_row_on() -> None:
    now = 100.0
    resting = Resting(10.0, lambda: now)
    resting.failed("expire")
    assert not resting.rests("expire")
    resting.failed("expire")
    assert resting.rests("expire")
    assert not resting.rests("due")
    now = 110.0
    assert not resting.rests("expire")
    resting.failed("expire")
    assert resting.rests("expire")


def test_a_success_forgives_what_was_before() -> None:
    resting = Resting(10.0, lambda: 0.0)
    resting.failed("expire")
    resting.succeeded("expire")
    resting.failed("expire")
    assert not resting.rests("expire")
