"""A run that is to be stopped is stopped, whatever was heard of it first, and whatever the pool forgets."""

from __future__ import annotations

import os
import signal
import subprocess
import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.handover import HandOver
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.run import Report
from chiffon.agent.runs import Runs
from chiffon.agent.slate import Slates
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed
from tests.claimed import Books, claimed

LIMIT = 5.0


@pytest.fixture
def process() -> Iterator[subprocess.Popen[bytes]]:
    """A process that runs for as long as it may."""
    with subprocess.Popen(["/bin/sleep", "60"]) as found:
        yield found
        found.kill()


def runs_of(*requests: ClaimedRequest) -> Runs:
    """The runs of an agent that has these in hand; its pool sees to nothing."""
    pool = SimpleNamespace(maintain_pool=lambda: None, terminate_job=lambda pid, signal: None)
    pace = Pace(0.0)
    parts: list[Any] = [Books(), None, pace, Line(lambda turn: None, pace, None, lambda: 1), 1]
    runs = Runs(SimpleNamespace(pool=pool), Settings(), *parts)
    runs._held.update({(request.id, request.claim.execution): request for request in requests})
    return runs


def begun(request: ClaimedRequest, pid: int, ago: float) -> ClaimedRequest:
    """The same, begun by that process so many seconds ago."""
    request.begin(pid, time.monotonic() - ago)
    return request


def test_a_run_whose_limit_the_pool_has_forgotten_is_stopped_some_seconds_after_it(
    process: subprocess.Popen[bytes],
) -> None:
    books = Books()
    request = begun(claimed(books, timeout=LIMIT), process.pid, ago=LIMIT + 4)
    runs_of(request).look()
    assert books.verdicts() == ["TimedOut"]
    assert process.wait() == -signal.SIGKILL


def test_a_run_whose_limit_is_just_over_is_left_to_the_pool(process: subprocess.Popen[bytes]) -> None:
    books = Books()
    request = begun(claimed(books, timeout=LIMIT), process.pid, ago=LIMIT + 1)
    runs_of(request).look()
    assert books.verdicts() == []
    assert process.poll() is None


def test_a_hand_over_that_was_seen_to_run_before_its_process_was_heard_can_be_stopped() -> None:
    slate = Slates(1).lend()
    assert slate is not None
    request = claimed(Books())
    hand_over = HandOver([request], slate, returned=lambda back: None, over=lambda over: None)
    told: dict[str, Any] = {}
    hand_over.execute_using_pool(SimpleNamespace(apply_async=lambda call, **options: told.update(options)))
    slate.begin(0)
    slate._head.at -= 1.0  # it has run for a while
    request.unwanted = True

    assert hand_over.look() is None
    told["accept_callback"](4711, time.monotonic())

    assert hand_over.look() is request
    assert request.worker_pid == 4711


def test_a_run_in_a_thread_that_has_ended_already_does_not_take_its_agent_along_when_it_is_lost() -> None:
    books, others = Books(), Books()
    ended, neighbour = claimed(books), claimed(others, task_id="neighbour")
    for request in (ended, neighbour):
        begun(request, os.getpid(), ago=1)
    ended.on_success(Report(Completed("1")))
    runs = runs_of(ended, neighbour)
    abandoned: list[bool] = []
    runs.on_abandon = lambda: abandoned.append(True)

    runs.lose((ended.id, ended.claim.execution))

    assert abandoned == []
    assert others.verdicts() == []


class Draining:
    """A hand-over of two in a process, of an agent that drains: nobody looks at it. ``heard``: its process was."""

    def __init__(self, pid: int, *, heard: bool = True) -> None:
        slate = Slates(1).lend()
        assert slate is not None
        self.slate, self.books = slate, Books()
        self.first, self.second = claimed(Books(), task_id="first"), claimed(self.books, task_id="second")
        self.pool = SimpleNamespace(apply_async=lambda call, **options: None, terminate_job=lambda pid, signal: None)
        hand_over = HandOver([self.first, self.second], slate, returned=lambda back: None, over=lambda over: None)
        hand_over.execute_using_pool(self.pool)
        if heard:
            hand_over._on_accepted(pid, time.monotonic())

    def cancel(self, request: ClaimedRequest) -> None:
        """As each round does, as long as it has not ended."""
        request.stop(self.pool)
        request.stop(self.pool)


def test_who_has_begun_unseen_in_a_hand_over_is_stopped_with_its_process_when_its_agent_drains(
    process: subprocess.Popen[bytes],
) -> None:
    draining = Draining(process.pid)
    draining.slate.begin(1)
    draining.cancel(draining.second)
    assert draining.books.verdicts() == ["Cancelled"]
    assert process.wait() == -signal.SIGKILL


def test_who_has_ended_unseen_in_a_hand_over_keeps_its_end_when_its_agent_drains(
    process: subprocess.Popen[bytes],
) -> None:
    draining = Draining(process.pid)
    draining.slate.begin(1)
    draining.slate.end(1, Report(Completed("1")))
    draining.cancel(draining.second)
    assert draining.books.verdicts() == []
    assert process.poll() is None


def test_who_runs_in_a_process_that_was_not_heard_yet_is_not_taken_for_one_that_has_not_begun() -> None:
    draining = Draining(4711, heard=False)
    draining.slate.begin(1)
    draining.cancel(draining.second)
    assert draining.books.verdicts() == []


def test_who_has_not_begun_in_a_hand_over_is_given_back_when_its_agent_drains(
    process: subprocess.Popen[bytes],
) -> None:
    draining = Draining(process.pid)
    draining.slate.begin(0)
    draining.cancel(draining.second)
    assert draining.books.verdicts() == ["GivenBack"]
    assert not draining.slate.begin(1), "it was called back"
    assert process.poll() is None
