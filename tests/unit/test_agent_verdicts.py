"""Whatever leaves a run, and however, is its end: a retry stays one, and nothing is taken for the end of a process."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import pytest
from celery import Celery, Task
from celery.exceptions import SoftTimeLimitExceeded

from chiffon.agent.app import create_app
from chiffon.agent.backend_waiting import PATIENCE
from chiffon.agent.run import Report, current
from chiffon.agent.task import LedgerTask
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, Crashed, Failed, RetryLater, TimedOut
from tests.api import NOBODY
from tests.runs import FACTS, raising


@pytest.fixture
def app() -> Celery:
    """The agents' application; what it runs here needs no ledger."""
    return create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))


def run(
    name: str, *, parameters: dict[str, Any] | None = None, embed: dict[str, Any] | None = None, **headers: Any
) -> Report:
    """One run of a task."""
    request = {"id": "own", "task": name, "root_id": "own", "retries": 0, "delivery_info": {}, **headers}
    return do_work(name, "own", request, ([], parameters or {}, embed or {}), FACTS)


def test_a_retry_of_who_ignores_its_result_is_a_retry(app: Celery) -> None:
    @app.task(name="test.again", shared=False, bind=True)
    def again(self: Any) -> None:
        raise self.retry(exc=ValueError("not yet"), countdown=7)

    report = run("test.again", ignore_result=True)
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.after == 7
    assert (report.verdict.error.type, report.verdict.error.message) == ("ValueError", "not yet")
    assert "in again" in (report.verdict.error.traceback or "")


def test_a_retry_that_is_asked_for_on_the_way_is_one(app: Celery) -> None:
    @app.task(name="test.again", shared=False, bind=True)
    def again(self: Any) -> str:
        self.retry(countdown=7, throw=False)
        return "and went on"

    report = run("test.again", embed={"callbacks": [dict(app.signature("echo"))]})
    assert isinstance(report.verdict, RetryLater)
    assert 6 < report.verdict.after <= 7


@pytest.mark.parametrize("ignore_result", [False, True])
def test_a_retry_that_is_asked_for_before_the_start_is_due_when_it_says(app: Celery, ignore_result: bool) -> None:
    class NotYet(Task):
        def before_start(self, *_: Any) -> None:
            raise self.retry(countdown=7)

    @app.task(name="test.not_yet", shared=False, base=NotYet, ignore_result=ignore_result)
    def not_yet() -> None: ...

    report = run("test.not_yet")
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.after == 7


def test_a_work_type_s_policy_holds_for_who_ignores_its_result(app: Celery) -> None:
    report = run(raising(app, ValueError("no"), retries=1), ignore_result=True)
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.error.type == "ValueError"


def test_what_is_raised_and_is_no_exception_to_python_is_a_failure_all_the_same(app: Celery) -> None:
    report = run(raising(app, asyncio.CancelledError("the loop was closed")))
    assert isinstance(report.verdict, Failed)
    assert "CancelledError: the loop was closed" in report.verdict.error.message


def test_it_is_retried_by_the_policy_as_any_other(app: Celery) -> None:
    report = run(raising(app, asyncio.CancelledError(), retries=1))
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.error.type == "CancelledError"


@pytest.mark.parametrize(
    ("error", "verdict"),
    [(SystemExit(3), Crashed), (KeyboardInterrupt(), Crashed), (SoftTimeLimitExceeded(), TimedOut)],
)
def test_what_has_a_meaning_of_its_own_keeps_it(app: Celery, error: BaseException, verdict: type) -> None:
    assert isinstance(run(raising(app, error, retries=1)).verdict, verdict)


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
def test_who_runs_out_of_memory_once_its_end_is_known_has_ended_so_and_what_follows_is_a_task_s(app: Celery) -> None:
    class RunsOut(LedgerTask):
        def on_success(self, *_: Any) -> None:
            raise MemoryError("once it was over")

    @app.task(name="test.ends", shared=False, base=RunsOut)
    def ends() -> str:
        return "done"

    report = run("test.ends")
    assert report.verdict == Completed('"done"')
    assert report.deferred


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
def test_who_runs_out_of_memory_over_its_result_has_crashed(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    @app.task(name="test.much", shared=False)
    def much() -> str:
        return "much"

    def run_out(*_: Any, **__: Any) -> None:
        raise MemoryError("over the result")

    monkeypatch.setattr(app.backend, "mark_as_done", run_out)
    report = run("test.much")
    assert isinstance(report.verdict, Crashed)


@pytest.mark.filterwarnings("ignore:Exception raised outside body")
def test_a_failure_of_which_not_all_could_be_told_is_told_by_a_task(
    app: Celery, monkeypatch: pytest.MonkeyPatch
) -> None:
    def run_out(*_: Any, **__: Any) -> None:
        raise MemoryError("over its children")

    monkeypatch.setattr(app.backend, "store_result", run_out)  # the verdict is known by then
    report = run(raising(app, ValueError("no")))
    assert isinstance(report.verdict, Failed)
    assert report.deferred


class Plain(Task):
    """A base that knows nothing of ledgers."""

    abstract = True


class Calling(Plain):
    """One that has its own way to be called."""

    abstract = True

    def __call__(self, *args: Any, **parameters: Any) -> Any:
        return self.run(*args, **parameters)


@pytest.mark.parametrize("base", [Plain, Calling])
def test_a_task_with_a_base_of_its_own_is_retried_when_it_asks(app: Celery, base: type[Task]) -> None:
    @app.task(name="test.again", shared=False, bind=True, base=base)
    def again(self: Any) -> None:
        raise self.retry(countdown=7)

    report = run("test.again")
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.after == 7


@pytest.mark.parametrize("base", [Plain, Calling])
@pytest.mark.parametrize("is_instance", [False, True])
def test_what_follows_a_task_with_a_base_of_its_own_is_caught(app: Celery, base: type[Task], is_instance: bool) -> None:
    class Ends(base):  # type: ignore[misc, valid-type]
        name = "test.ends"

        def run(self) -> str:
            return "done"

    app.register_task(Ends() if is_instance else Ends)
    report = run("test.ends", embed={"callbacks": [dict(app.signature("echo"))]})
    assert report.verdict == Completed('"done"')
    assert [draft.headers["task"] for draft in report.drafts] == ["echo"]


def test_what_a_hook_publishes_is_caught_by_an_end_only(app: Celery) -> None:
    ending: dict[str, bool] = {}

    def note(hook: str) -> None:
        found = current()
        assert found is not None
        ending[hook] = found.ending

    class Hooked(Task):
        def on_retry(self, *_: Any) -> None:
            note("retry")

        def on_failure(self, *_: Any) -> None:
            note("failure")

    @app.task(name="test.hooked", shared=False, bind=True, base=Hooked)
    def hooked(self: Any, fails: bool) -> None:
        raise ValueError("no") if fails else self.retry(countdown=7)

    @app.task(name="test.errback", shared=False)
    def errback(request: Any, error: Any, trace: Any) -> None: ...

    run("test.hooked", parameters={"fails": False})
    run("test.hooked", parameters={"fails": True})
    assert ending == {"retry": False, "failure": True}
    # An errback that is called on the spot leaves all of the end to a task of its own.
    run("test.hooked", parameters={"fails": True}, embed={"errbacks": [dict(app.signature("test.errback"))]})
    assert ending["failure"] is False


def test_a_task_that_wants_its_start_told_runs_though_the_ledger_is_away(app: Celery) -> None:
    @app.task(name="test.tracked", shared=False, track_started=True)
    def tracked() -> str:
        return "done"

    began = time.monotonic()
    assert run("test.tracked").verdict == Completed('"done"')
    assert time.monotonic() - began < PATIENCE / 2
