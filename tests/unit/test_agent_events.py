"""Flower is told what the ledger wrote down, whatever the run said of itself."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.domain.states import State
from chiffon.domain.verdicts import (
    Cancelled,
    Completed,
    Crashed,
    DeadLettered,
    Failed,
    GivenBack,
    Replaced,
    RetryLater,
    TimedOut,
    Verdict,
    WorkError,
)
from chiffon.ledger.settle import Fenced, Recorded
from tests.claimed import Books, app, claimed

WRONG = WorkError("ValueError", "no", traceback="line 1")


def events_of(verdict: Verdict, answer: Recorded | Fenced) -> list[tuple[str, dict[str, Any]]]:
    """What is sent when a run of that verdict has this answer from the ledger."""
    books, sent = Books(), []
    request = claimed(books)
    request._eventer = SimpleNamespace(enabled=True, send=lambda event, **fields: sent.append((event, fields)))
    request.outcome.reach(request, verdict)
    (finished,) = books.settlements()
    assert sent == []
    finished.reply(answer)
    return sent


@pytest.mark.parametrize(
    ("verdict", "status", "event"),
    [
        (Completed('"done"'), State.COMPLETED, "task-succeeded"),
        (Failed(WRONG), State.FAILED, "task-failed"),
        (Failed(WRONG), State.CANCELLED, "task-revoked"),
        (TimedOut(WRONG), State.TIMED_OUT, "task-failed"),
        (Cancelled(WRONG), State.CANCELLED, "task-revoked"),
        (DeadLettered(WRONG), State.DEAD_LETTERED, "task-failed"),
        (RetryLater(1.0, WRONG), State.RETRYING, "task-retried"),
        (RetryLater(1.0, WRONG), State.CANCELLED, "task-revoked"),
        (Crashed(WRONG), State.PENDING, "task-retried"),
        (Crashed(WRONG), State.DEAD_LETTERED, "task-failed"),
        (GivenBack(WRONG, started=True), State.PENDING, "task-retried"),
        (GivenBack(WRONG, started=False), State.CANCELLED, "task-revoked"),
        (Replaced(), State.PENDING, "task-retried"),
    ],
)  # fmt: skip
def test_an_end_is_told_as_the_ledger_has_it(verdict: Verdict, status: State, event: str) -> None:
    ((sent, fields),) = events_of(verdict, Recorded(status, owes_dead_letter=False, fresh=True))
    assert (sent, fields["uuid"]) == (event, "t-1")


def test_a_failure_is_told_with_its_reason() -> None:
    ((_, fields),) = events_of(Crashed(WRONG), Recorded(State.DEAD_LETTERED, owes_dead_letter=True, fresh=True))
    assert (fields["exception"], fields["traceback"]) == ("ValueError: no", "line 1")


def test_the_end_of_a_run_that_was_overtaken_is_no_news() -> None:
    assert events_of(Completed('"done"'), Fenced()) == []


def test_no_event_shows_a_secret() -> None:
    leaky = WorkError("ValueError", "token=hunter2", traceback="at postgresql://app:hunter2@host/db")
    for verdict, status in ((Failed(leaky), State.FAILED), (RetryLater(1.0, leaky), State.RETRYING)):
        ((_, fields),) = events_of(verdict, Recorded(status, owes_dead_letter=False, fresh=True))
        assert "ValueError" in str(fields) or "token" in str(fields)
        assert "hunter2" not in str(fields)


def test_what_work_sends_is_announced_without_secrets() -> None:
    options = {"create_sent_event": True}
    message = app().amqp.as_task_v2(
        "t-1", "echo", [{"token": "hunter2"}], {"password": "hunter2", "input": 1}, **options
    )
    assert "hunter2" in str(message.body)
    assert message.sent_event["kwargs"] == "{'password': '[redacted]', 'input': 1}"
    assert "hunter2" not in str((message.sent_event, message.headers))
