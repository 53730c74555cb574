"""A slate outlives the process that writes on it."""

from __future__ import annotations

import os
import signal
from collections.abc import Callable
from typing import Any

from chiffon.agent.slate import SIZE, Slate, Slates


class CalledBackInBetween:
    """The head of a slate whose limit falls to 1 once its process has looked at it."""

    def __init__(self, head: Any) -> None:
        self.begun, self.at = head.begun, head.at
        self._limits = iter((2, 1))

    @property
    def limit(self) -> int:
        """The limit now."""
        return next(self._limits)


def in_a_process(slate: Slate, work: Callable[[Slate], None]) -> None:
    """Have a forked process write, and wait until it is gone."""
    pid = os.fork()
    if pid == 0:
        try:
            work(slate)
        finally:
            os._exit(0)
    os.waitpid(pid, 0)


def fresh(places: int = 3) -> Slate:
    slate = Slates(1).lend()
    assert slate is not None
    slate.wipe(places)
    return slate


def test_what_a_process_has_noted_is_there_after_it_was_killed() -> None:
    slate = fresh()

    def work(slate: Slate) -> None:
        slate.begin(0)
        slate.end(0, "first")
        slate.begin(1)
        os.kill(os.getpid(), signal.SIGKILL)

    in_a_process(slate, work)
    reports, _ = slate.reports(0)
    assert [(place, report) for place, _, report in reports] == [(0, "first")]
    assert slate.begun[0] == 1


def test_reports_are_read_on_from_where_the_last_reading_ended() -> None:
    slate = fresh()
    slate.begin(0)
    slate.end(0, "a")
    first, since = slate.reports(0)
    slate.begin(1)
    slate.end(1, "b")
    second, _ = slate.reports(since)
    assert [report for *_, report in first + second] == ["a", "b"]


def test_what_was_called_back_is_not_begun() -> None:
    slate = fresh()
    assert slate.begin(0)
    slate.recall(1)
    in_a_process(slate, lambda slate: os._exit(0) if not slate.begin(1) else slate.end(1, "ran"))
    assert slate.reports(0)[0] == []


def test_what_was_called_back_does_not_count_as_begun_even_if_that_came_in_between() -> None:
    slate = fresh()
    assert slate.begin(0)
    began = slate.begun
    slate.recall(1)
    assert not slate.begin(1)
    assert slate.begun == began

    slate._head = CalledBackInBetween(slate._head)  # type: ignore[assignment]
    assert not slate.begin(1)
    assert slate.begun == began


def test_a_report_that_does_not_fit_is_refused_and_spoils_none() -> None:
    slate = fresh()
    slate.begin(0)
    slate.end(0, "small")
    slate.begin(1)
    assert not slate.end(1, "x" * SIZE)
    assert [report for *_, report in slate.reports(0)[0]] == ["small"]


def test_a_wiped_slate_tells_nothing_of_the_last_hand_over() -> None:
    slate = fresh()
    slate.begin(0)
    slate.end(0, "old")
    slate.wipe(2)
    assert slate.begun[0] == -1
    assert slate.reports(0)[0] == []
    assert slate.begin(1)


def test_a_slate_is_lent_to_one_at_a_time() -> None:
    slates = Slates(2)
    first, second = slates.lend(), slates.lend()
    assert first is not second
    assert slates.lend() is None
    assert first is not None
    slates.give_back(first)
    assert slates.lend() is first
