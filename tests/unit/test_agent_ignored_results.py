"""Who ignores its result may return what nobody could keep: the work is done, and nothing of it is asked for."""

from __future__ import annotations

from typing import Any

import pytest
from celery import Celery

from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, Failed
from tests.api import NOBODY
from tests.runs import FACTS

BODY = {"task": "echo", "args": [], "kwargs": {}, "options": {"task_id": "body"}, "chord_size": 2}
LIMIT = 10_000


@pytest.fixture
def app() -> Celery:
    """The agents' application; what it runs here needs no ledger."""
    return create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing", max_result=LIMIT))


def returning(app: Celery, value: Any, **options: Any) -> str:
    """The name of a task that returns this."""

    @app.task(name="test.returns", shared=False, **options)
    def returns() -> Any:
        return value

    return "test.returns"


def run(name: str, *, embed: dict[str, Any] | None = None, **headers: Any) -> Report:
    """One run of a task."""
    request = {"id": "own", "task": name, "root_id": "own", "retries": 0, "delivery_info": {}, **headers}
    return do_work(name, "own", request, ([], {}, embed or {}), FACTS)


UNKEEPABLE = pytest.mark.parametrize("value", [object(), "x" * 2 * LIMIT], ids=["no JSON", "too large"])


@UNKEEPABLE
def test_a_task_that_ignores_its_result_has_done_its_work_whatever_it_returns(app: Celery, value: Any) -> None:
    assert run(returning(app, value, ignore_result=True)).verdict == Completed("null")


@UNKEEPABLE
def test_so_has_one_whose_sender_ignores_it(app: Celery, value: Any) -> None:
    assert run(returning(app, value), ignore_result=True).verdict == Completed("null")


@UNKEEPABLE
@pytest.mark.parametrize(("option", "header"), [(False, {}), (True, {"ignore_result": False})])
def test_it_is_a_failure_for_who_asks_for_the_result(
    app: Celery, value: Any, option: bool, header: dict[str, bool]
) -> None:
    assert isinstance(run(returning(app, value, ignore_result=option), **header).verdict, Failed)


@UNKEEPABLE
def test_a_part_of_a_chord_is_asked_for_its_result_whoever_ignores_it(app: Celery, value: Any) -> None:
    name = returning(app, value, ignore_result=True)
    report = run(name, embed={"chord": BODY}, group="g")
    assert isinstance(report.verdict, Failed)
    assert [part.status for part in report.chord_parts] == ["FAILURE"]
