"""What sees to the ends of others waits for the ledger as long as it takes: nobody would see to them again."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest
from celery import Celery, signature

from chiffon.agent import aftermath
from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.devstack.postgres import PrivatePostgres
from chiffon.domain.states import State
from chiffon.domain.verdicts import Completed, GivenBack
from chiffon.ledger import groups
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD
from tests.bench import Bench

FACTS = {
    "execution": 1, "trace_id": "0" * 32, "request_id": "r", "attempt": 1, "retries": 0, "max_retries": None,
    "timeout": 60.0,
}  # fmt: skip

Do = Callable[[], Report]
"""A run of a task that goes on after an end."""


@pytest.fixture
def app(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> Celery:
    """The agents' application, which does not wait for long."""
    monkeypatch.setattr("chiffon.agent.backend.PATIENCE", 0.3)
    monkeypatch.setattr("chiffon.agent.backend_waiting.PATIENCE", 0.3)
    monkeypatch.setattr(aftermath, "ledger", lambda: bench.ledger)
    return create_app(Settings(database_url=bench.url))


def doing(name: str, own_id: str = "run", **parameters: Any) -> Do:
    """A run of a task, as its claim hands it to the pool."""
    request = {"id": own_id, "task": name, "root_id": own_id, "retries": 0, "delivery_info": {}}
    return lambda: do_work(name, own_id, dict(request), ([], parameters, {}), FACTS)


@pytest.fixture
def after_end(app: Celery, bench: Bench) -> Do:
    """What goes on after a cancelled task that had an errback."""
    errback = dict(signature("echo", kwargs={"input": 1}, immutable=True))
    task_id = bench.task_in(State.CANCELLED, canvas={"embed": {"errbacks": [errback]}})
    ((own_id,),) = bench.sql("SELECT task_id FROM tasks WHERE work_type = %s", AFTER_END)
    return doing(AFTER_END, own_id, task_id=task_id)


@pytest.fixture
def release(app: Celery, bench: Bench) -> Do:
    """What goes on after the only part of a chord."""
    part = bench.task_in(State.COMPLETED)
    with bench.transaction() as cursor:
        groups.begin_chord(cursor, "g", f'[["g", null], [[["{part}", null], null]]]')
    return doing(RELEASE_CHORD, group_id="g", callback=dict(signature("echo", kwargs={"input": 1}, immutable=True)))


@pytest.fixture(params=["after_end", "release"])
def do(request: pytest.FixtureRequest) -> Do:
    """Either."""
    found: Do = request.getfixturevalue(request.param)
    return found


def given_back(report: Report) -> bool:
    """Whether a run was given back, and set nothing off."""
    kept = (report.drafts, report.chord_parts, report.side_results)
    return isinstance(report.verdict, GivenBack) and report.verdict.started and kept == ([], [], [])


def test_an_outage_gives_it_back_and_the_next_run_sets_off_what_follows(do: Do, postgres: PrivatePostgres) -> None:
    postgres.stop()
    assert given_back(do())
    postgres.start()
    report = do()
    assert isinstance(report.verdict, Completed)
    assert [draft.headers["task"] for draft in report.drafts] == ["echo"]


def test_an_outage_in_the_middle_is_no_failure_of_the_header(
    release: Do, app: Celery, bench: Bench, postgres: PrivatePostgres, monkeypatch: pytest.MonkeyPatch
) -> None:
    read = app.backend._header

    def read_the_last(group_id: str) -> Any:
        found = read(group_id)
        postgres.stop()
        return found

    monkeypatch.setattr(app.backend, "_header", read_the_last)
    assert given_back(release())
    postgres.start()
    monkeypatch.undo()
    assert isinstance(release().verdict, Completed)


def test_a_schema_that_is_behind_gives_it_back(after_end: Do, bench: Bench) -> None:
    bench.sql("ALTER TABLE tasks RENAME TO gone")
    assert given_back(after_end())
    bench.sql("ALTER TABLE gone RENAME TO tasks")
    assert isinstance(after_end().verdict, Completed)
