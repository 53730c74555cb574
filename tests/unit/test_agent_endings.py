"""What a run's end sets off is caught whole: nothing is asked of the ledger, which may be away, or written there."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, chord
from celery.exceptions import Reject

from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, DeadLettered, Failed
from tests.api import NOBODY
from tests.runs import FACTS

BODY = {"task": "echo", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "chord_size": 2}


@pytest.fixture
def app(monkeypatch: pytest.MonkeyPatch) -> Celery:
    """The agents' application; its ledger is away, and it does not wait for long."""
    monkeypatch.setattr("chiffon.agent.backend.PATIENCE", 0.1)
    monkeypatch.setattr("chiffon.agent.backend_waiting.PATIENCE", 0.1)
    return create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))


def run(app: Celery, raised: Exception | None = None, **embed: Any) -> Report:
    """A run of a task of the group `g` that raises this, or returns."""

    @app.task(name="test.work", shared=False)
    def work() -> None:
        if raised is not None:
            raise raised

    request = {"id": "own", "task": "test.work", "root_id": "own", "group": "g", "retries": 0, "delivery_info": {}}
    return do_work("test.work", "own", request, ([], {}, embed), FACTS)


def test_a_chord_that_comes_next_begins_with_the_end_and_not_before(app: Celery) -> None:
    header = [app.signature("echo", kwargs={"input": number}, immutable=True) for number in range(2)]
    report = run(app, chain=[dict(chord(header, app.signature("echo")))])
    assert isinstance(report.verdict, Completed)
    assert [draft.headers["task"] for draft in report.drafts] == ["echo", "echo"]
    (begun,) = report.chords
    assert begun.tree is not None
    assert all(draft.headers["id"] in begun.tree for draft in report.drafts)
    assert {draft.headers["group"] for draft in report.drafts} == {begun.group_id}
    assert report.chord_sizes == {begun.group_id: 2}


def test_a_part_that_fails_in_front_of_others_is_counted_and_keeps_its_own_error(app: Celery) -> None:
    behind = {"task": "echo", "args": [], "kwargs": {}, "options": {"task_id": "last", "group_id": "g", "chord": BODY}}
    report = run(app, ValueError("it broke"), chain=[behind])
    assert isinstance(report.verdict, Failed)
    assert report.verdict.error.type == "ValueError"
    assert [(part.group_id, part.task_id) for part in report.chord_parts] == [("g", "last")]
    assert [side.task_id for side in report.side_results] == ["last"]


def test_what_a_rejected_message_concerns_is_left_to_a_task_that_tells_it(app: Celery) -> None:
    report = run(app, Reject("no", requeue=False), chord=BODY)
    assert isinstance(report.verdict, DeadLettered)
    assert report.deferred
    assert not report.sets_off
