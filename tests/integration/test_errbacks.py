"""An errback that Celery calls on the spot is work: here it is called after the failure is settled, by a task."""

from __future__ import annotations

from typing import Any

import pytest

from chiffon.agent import aftermath
from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, Failed
from chiffon.ledger.effects import AFTER_END
from tests.bench import Bench

FACTS = {
    "execution": 1, "trace_id": "0" * 32, "request_id": "r", "attempt": 1, "retries": 0, "max_retries": None,
    "timeout": 60.0,
}  # fmt: skip


def run(name: str, task_id: str, parameters: dict[str, Any], embed: dict[str, Any]) -> Report:
    """A run of a task, as its claim hands it to the pool."""
    request = {"id": task_id, "task": name, "root_id": task_id, "retries": 0, "delivery_info": {}}
    return do_work(name, task_id, request, ([], parameters, embed), FACTS)


def test_it_is_called_once_the_end_is_settled_with_what_celery_gives_it(
    bench: Bench, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(aftermath, "ledger", lambda: bench.ledger)
    app = create_app(Settings(database_url=bench.url))
    called: list[tuple[str, str, str]] = []

    @app.task(name="test.boom", shared=False)
    def boom() -> None:
        raise ValueError("it broke")

    @app.task(name="test.on_the_spot", shared=False)
    def on_the_spot(request: Any, error: Exception, traceback: Any) -> None:
        called.append((request.id, repr(error), str(traceback).splitlines()[-1]))

    embed = {"errbacks": [dict(on_the_spot.s()), dict(app.signature("echo", kwargs={"input": 1}, immutable=True))]}
    claim = bench.claimed(bench.born(work_type="test.boom", canvas={"embed": embed}))
    report = run("test.boom", claim.task_id, {}, embed)
    assert isinstance(report.verdict, Failed)
    assert (called, report.drafts, report.deferred) == ([], [], True)
    bench.settle(claim, report.verdict, caught=not report.deferred)
    [(after, parameters)] = bench.sql("SELECT task_id, parameters FROM tasks WHERE work_type = %s", AFTER_END)
    report = run(AFTER_END, after, parameters, {})
    assert isinstance(report.verdict, Completed)
    assert called == [(claim.task_id, "ValueError('it broke')", "ValueError: it broke")]
    assert [draft.headers["task"] for draft in report.drafts] == ["echo"]


def test_errbacks_that_are_tasks_become_rows_in_the_settling_commit(bench: Bench) -> None:
    app = create_app(Settings(database_url=bench.url))

    @app.task(name="test.boom", shared=False)
    def boom() -> None:
        raise ValueError("it broke")

    embed = {"errbacks": [dict(app.signature("echo", kwargs={"input": 1}, immutable=True))]}
    report = run("test.boom", "some-id", {}, embed)
    assert not report.deferred
    assert [draft.headers["task"] for draft in report.drafts] == ["echo"]
