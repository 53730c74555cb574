"""A task that calls another on the spot goes on: the other's return is no end, and what is published then goes out."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery, Task

from chiffon.agent.app import create_app
from chiffon.agent.run import Report, current
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, Failed
from tests.api import NOBODY
from tests.runs import FACTS


@pytest.fixture
def app() -> Celery:
    """The agents' application; what it runs here needs no ledger."""
    app = create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))

    @app.task(name="test.helper", shared=False)
    def helper(number: int) -> int:
        return number + 1

    return app


@pytest.fixture
def sent(app: Celery, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The names of the tasks that went to the broker."""
    names: list[str] = []

    def send(producer: Any, name: str, message: Any, **_: Any) -> None:
        names.append(name)

    monkeypatch.setattr(app.amqp, "_create_task_sender", lambda: send)
    return names


def run(name: str, *arguments: Any, callbacks: list[Any] | None = None) -> Report:
    """One run of a task."""
    request = {"id": "own", "task": name, "root_id": "own", "retries": 0, "delivery_info": {}}
    return do_work(name, "own", request, (list(arguments), {}, {"callbacks": callbacks or []}), FACTS)


def call(app: Celery) -> Any:
    return app.tasks["test.helper"](1)


def apply(app: Celery) -> Any:
    return app.tasks["test.helper"].apply((1,)).get()


def call_many(app: Celery) -> Any:
    return app.tasks["celery.map"](app.signature("test.helper"), [1])[0]


@pytest.mark.parametrize("way", [call, apply, call_many])
def test_what_a_task_sends_after_it_has_called_another_goes_out_whatever_becomes_of_it(
    app: Celery, sent: list[str], way: Any
) -> None:
    seen: list[Any] = []

    @app.task(name="test.calls", shared=False)
    def calls() -> None:
        seen.append(way(app))
        found = current()
        assert found is not None
        seen.append(found.ending)
        app.send_task("echo", kwargs={"input": 1})
        raise ValueError("and then it failed")

    report = run("test.calls")
    assert isinstance(report.verdict, Failed)
    assert report.verdict.error.type == "ValueError"
    assert seen == [2, False]
    assert sent == ["echo"]
    assert report.drafts == []


def test_a_task_that_is_mapped_over_others_has_an_end_of_its_own(app: Celery, sent: list[str]) -> None:
    @app.task(name="test.sends", shared=False)
    def sends(number: int) -> int:
        app.send_task("echo", kwargs={"input": number})
        return number

    report = run("celery.map", app.signature("test.sends"), [1, 2], callbacks=[dict(app.signature("test.helper"))])
    assert report.verdict == Completed("[1, 2]")
    assert sent == ["echo", "echo"]
    assert [draft.headers["task"] for draft in report.drafts] == ["test.helper"]


def test_a_task_that_is_called_before_the_run_s_own_begins_is_not_taken_for_it(app: Celery, sent: list[str]) -> None:
    class Prepared(Task):
        def before_start(self, *_: Any) -> None:
            app.tasks["test.helper"](1)

    @app.task(name="test.prepared", shared=False, base=Prepared)
    def prepared() -> str:
        app.send_task("echo", kwargs={"input": 1})
        return "done"

    report = run("test.prepared", callbacks=[dict(app.signature("test.helper"))])
    assert report.verdict == Completed('"done"')
    assert sent == ["echo"]
    assert [draft.headers["task"] for draft in report.drafts] == ["test.helper"]
