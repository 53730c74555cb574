"""A run that is to be stopped is stopped, whatever was heard of it first, and whatever the pool forgets."""

from __future__ import annotations

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
from chiffon.agent.runs import Runs
from chiffon.agent.slate import Slates
from chiffon.config import Settings
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
