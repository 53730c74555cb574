"""Giving back: what a run had said before its process was killed counts, and nothing that is heard of its death."""

from __future__ import annotations

import os
import signal
import threading
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
from billiard.exceptions import WorkerLostError
from celery.worker import state

from chiffon.agent import drain as draining
from chiffon.agent.drain import Drain
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.run import Report
from chiffon.agent.runs import Runs
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed
from tests.claimed import Books, claimed
from tests.racing import until


def runs_of(*requests: ClaimedRequest) -> Runs:
    """The runs of an agent that has these in hand."""
    pace = Pace(0.0)
    parts: list[Any] = [Books(), None, pace, Line(lambda turn: None, pace, None, lambda: 1), 1]
    runs = Runs(SimpleNamespace(pool=None), Settings(), *parts)
    runs._held.update({(request.id, request.claim.execution): request for request in requests})
    return runs


def complete(request: ClaimedRequest) -> None:
    """Its result is read."""
    request.on_success(Report(Completed("1")))


def die(request: ClaimedRequest) -> None:
    """The end of its process is noticed."""
    request.on_failure(SimpleNamespace(exception=WorkerLostError("gone"), traceback=""))


@pytest.mark.parametrize(("heard", "verdict"), [(complete, "Completed"), (die, "GivenBack")])
def test_what_is_heard_of_a_run_between_the_end_of_its_process_and_giving_back(
    heard: Callable[[ClaimedRequest], None], verdict: str
) -> None:
    books = Books()
    request = claimed(books)
    request.begin(4711, 0.0)
    runs_of(request).surrender("its agent ends", last_words=lambda: heard(request))
    assert books.verdicts() == [verdict]


def test_who_gives_back_waits_for_the_pool_to_have_read_it_all(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(draining, "LAST_WORDS", 60.0)
    books = Books()
    request = claimed(books)
    request.begin(4711, 0.0)
    drain = Drain(runs_of(request), 0.0, name="agent@test")
    drain.begin()  # its time is over at once
    assert until(lambda: request.outcome.is_withheld)
    complete(request)
    ending = threading.Thread(target=drain.end)
    ending.start()
    ending.join(10)
    assert not ending.is_alive()
    assert books.verdicts() == ["Completed"]


def test_a_thread_that_cannot_be_stopped_is_not_waited_for() -> None:
    books = Books()
    request = claimed(books)
    request.begin(os.getpid(), 0.0)
    runs = runs_of(request)
    abandoned: list[bool] = []
    runs.on_abandon = lambda: abandoned.append(True)
    runs.surrender("its agent ends", last_words=lambda: complete(request))
    assert books.verdicts() == ["GivenBack"]
    assert abandoned


@pytest.fixture
def told(monkeypatch: pytest.MonkeyPatch) -> None:
    """Celery's own mark that a worker is to end is not left behind."""
    monkeypatch.setattr(state, "should_stop", None)


@pytest.mark.usefixtures("told")
def test_the_third_signal_ends_the_process_once_everything_is_given_back() -> None:
    books = Books()
    request = claimed(books)
    request.begin(4711, 0.0)
    drain = Drain(runs_of(request), 60.0, name="agent@test")
    abandoned: list[list[str]] = []
    drain.on_abandon = lambda: abandoned.append(books.verdicts())
    drain._on_signal(signal.SIGTERM, None)
    assert state.should_stop == 0
    drain.begin()
    drain._pool_has_ended.set()
    for _ in range(2):
        assert not abandoned
        drain._on_signal(signal.SIGTERM, None)
    assert until(lambda: abandoned == [["GivenBack"]])
    drain.end()


@pytest.mark.usefixtures("told")
def test_an_agent_whose_terminal_is_gone_is_told_to_end_all_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(*_: Any) -> None:
        raise ValueError("I/O operation on closed file")

    monkeypatch.setattr(draining, "safe_say", refuse)
    with pytest.raises(ValueError, match="closed"):
        Drain(runs_of(), 60.0, name="agent@test")._on_signal(signal.SIGTERM, None)
    assert state.should_stop == 0
