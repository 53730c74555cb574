"""Celery's own revoke, as Flower sends it, ends the one that it names, and nobody who shares its process."""

from __future__ import annotations

import time
from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError
from celery.worker import state
from celery.worker.control import Panel

from chiffon.agent.app import create_app
from chiffon.agent.backend_waiting import PATIENCE
from chiffon.agent.handover import HandOver
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.slate import Slate, Slates
from chiffon.config import Settings
from tests.api import NOBODY
from tests.claimed import Books, claimed


class Pool:
    """Notes which process it was to end."""

    def __init__(self) -> None:
        self.ended: list[int] = []

    def apply_async(self, call: Any, **options: Any) -> None:
        """Take it."""

    def terminate_job(self, pid: int, signal: Any) -> None:
        """Note it."""
        self.ended.append(pid)


@pytest.fixture
def revoked() -> Iterator[str]:
    """A task that Celery has noted to be revoked."""
    state.revoked.add("revoked")
    yield "revoked"
    state.revoked.discard("revoked")


def handed_over(line: Line, *requests: ClaimedRequest) -> tuple[HandOver, Slate]:
    """A hand-over of these, of which what comes back comes back to the line."""
    slate = Slates(1).lend()
    assert slate is not None
    hand_over = HandOver(requests, slate, returned=line._come_back, over=lambda over: None)
    hand_over.execute_using_pool(Pool())
    return hand_over, slate


def test_who_waits_is_ended_at_once_and_its_process_is_left_in_peace(revoked: str) -> None:
    books, pool = Books(), Pool()
    waiting = claimed(books, task_id=revoked)
    waiting.terminate(pool)
    waiting.begin(4711, time.monotonic())
    assert books.verdicts() == ["Cancelled"]
    assert pool.ended == []


def test_who_has_ended_does_not_take_along_what_its_process_runs_next(revoked: str) -> None:
    pool = Pool()
    request = claimed(Books(), task_id=revoked)
    request.begin(4711, time.monotonic())
    request.end_as_stopped()
    request.terminate(pool)
    assert pool.ended == []


def test_who_runs_alone_is_ended_with_its_process(revoked: str) -> None:
    pool = Pool()
    request = claimed(Books(), task_id=revoked)
    request.begin(4711, time.monotonic())
    request.terminate(pool)
    assert pool.ended == [4711]


def test_who_waits_in_a_hand_over_is_called_back_and_ended_and_its_companions_go_on(revoked: str) -> None:
    books, others, pool = Books(), Books(), Pool()
    line = Line(lambda turn: None, Pace(0.0), None, lambda: 1)
    first, target = claimed(others, task_id="first"), claimed(books, task_id=revoked)
    hand_over, slate = handed_over(line, first, target)
    hand_over._on_accepted(4711, time.monotonic())
    slate.begin(0)

    target.terminate(pool)
    hand_over._on_success((1, None))

    assert books.verdicts() == ["Cancelled"]
    assert others.verdicts() == []
    assert pool.ended == []


def test_who_waits_in_the_line_is_ended_when_its_turn_comes(revoked: str) -> None:
    books, turns = Books(), list[Any]()
    line = Line(turns.append, Pace(0.0), None, lambda: 1)
    line.join(claimed(books, task_id=revoked))
    line.move()
    with pytest.raises(TaskRevokedError):
        turns[0].execute_using_pool(Pool())
    assert books.verdicts() == ["Cancelled"]


def test_who_waits_for_its_rate_is_ended_when_its_turn_comes(revoked: str) -> None:
    books = Books()
    with pytest.raises(TaskRevokedError):
        claimed(books, task_id=revoked).execute_using_pool(Pool())
    assert books.verdicts() == ["Cancelled"]


@pytest.mark.parametrize("command", ["revoke", "terminate"])
def test_the_event_loop_waits_for_no_ledger_over_a_revoke(command: str) -> None:
    app = create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))
    began = time.monotonic()
    try:
        Panel.data[command](SimpleNamespace(app=app), task_id=["one", "another"], signal=None)
        assert time.monotonic() - began < PATIENCE / 2
        assert {"one", "another"} <= set(state.revoked)
    finally:
        for task_id in ("one", "another"):
            state.revoked.discard(task_id)
