"""A sender may call its own headers as it likes: the work is given them, and nothing of Celery's stumbles over one."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery
from celery.app.task import Context

from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, Failed
from tests.api import NOBODY
from tests.claimed import Books, claimed
from tests.runs import FACTS

NAMES = [name for name in dir(Context) if name.startswith("_") or callable(getattr(Context, name))] + ["children"]


@pytest.fixture
def app() -> Celery:
    """The agents' application; what it runs here needs no ledger."""
    return create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))


def run(app: Celery, name: str, **headers: Any) -> Report:
    """One run of a task, which another follows."""
    request = {"id": "own", "task": name, "root_id": "own", "retries": 0, "delivery_info": {}, **headers}
    return do_work(name, "own", request, ([], {}, {"callbacks": [dict(app.signature("echo"))]}), FACTS)


@pytest.mark.parametrize("name", NAMES)
def test_a_header_by_any_name_that_a_context_has_is_the_work_s_to_read(app: Celery, name: str) -> None:
    @app.task(name="test.reads", shared=False, bind=True)
    def reads(self: Any) -> Any:
        return self.request.headers[name]

    report = run(app, "test.reads", **{name: "x"})
    assert report.verdict == Completed('"x"')
    assert [draft.headers["task"] for draft in report.drafts] == ["echo"]
    assert not report.deferred


@pytest.mark.parametrize("name", ["get", "_children"])
def test_a_failure_is_one_too(app: Celery, name: str) -> None:
    @app.task(name="test.fails", shared=False)
    def fails() -> None:
        raise ValueError("no")

    report = run(app, "test.fails", **{name: "x"})
    assert isinstance(report.verdict, Failed)
    assert report.verdict.error.type == "ValueError"


def test_so_is_a_time_limit() -> None:
    books = Books()
    claimed(books, canvas={"headers": {"_children": "x", "get": "y"}}).time_out()
    [finished] = books.settlements()
    assert type(finished.settlement.verdict).__name__ == "TimedOut"
    assert finished.settlement.caught
