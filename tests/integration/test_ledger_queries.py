"""Reading: tasks by what they have in common, page by page, and each with all there is to say."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from chiffon.dispatch import find
from chiffon.dispatch.find import PAGE_BYTES, find_task, find_tasks
from chiffon.domain.errors import TaskNotFound
from chiffon.domain.states import ENDS, State
from chiffon.domain.verdicts import Completed, Crashed, RetryLater
from chiffon.domain.views import TaskFilter, TaskSteps
from chiffon.ledger import claims, queries
from tests.bench import Bench
from tests.builders import an_error, new_task


def found(bench: Bench, *, limit: int = 100, **wanted: Any) -> list[str]:
    """The ids of the tasks that fit."""
    with bench.transaction() as cursor:
        views, _ = queries.tasks(cursor, TaskFilter(**wanted), limit=limit, max_bytes=PAGE_BYTES)
        return [view.task_id for view in views]


def pages(bench: Bench, size: int, **wanted: Any) -> list[list[str]]:
    """The ids, page by page."""
    turned = []
    after = None
    while True:
        page = find_tasks(bench.ledger, TaskFilter(**wanted, after=after), limit=size)
        turned.append([view.task_id for view in page.tasks])
        after = page.next_after
        if after is None:
            return turned


def test_a_task_is_shown_with_its_result_its_runs_and_every_time(bench: Bench) -> None:
    task = new_task(priority=5, labels={"team": "a"}, parameters={"input": "hello"})
    bench.accept(task)
    bench.confirm(task.task_id)
    agent = bench.agent("worker@here")
    first = bench.claimed(task.task_id, by=agent)
    bench.settle(first, RetryLater(0.0, an_error("once more")), ran_for=1.0)
    second = bench.claimed(task.task_id, by=agent)
    bench.start(second)
    with bench.transaction() as cursor:
        claims.record_progress(cursor, task.task_id, 2, '{"percent": 50.0, "note": "half"}')
    bench.settle(second, Completed('{"output": "hello"}'))
    view = find_task(bench.ledger, task.task_id)
    for name in ("task_id", "request_id", "trace_id", "work_type", "priority", "queue", "parameters", "labels"):
        assert getattr(view, name) == getattr(task, name)
    assert (view.status, view.result, view.error) == ("completed", {"output": "hello"}, None)
    assert (view.attempts, view.agent_id, view.progress) == (2, "worker@here", {"percent": 50.0, "note": "half"})
    assert view.created_at <= view.started_at <= view.finished_at  # type: ignore[operator]
    one, other = view.executions
    assert (one.execution, one.outcome, one.error) == (
        1,
        "retried",
        {"type": "ValueError", "module": "builtins", "message": "once more"},
    )
    assert (other.execution, other.outcome, other.agent_id, other.incarnation) == (
        2,
        "completed",
        "worker@here",
        agent.incarnation,
    )
    assert one.claimed_at <= one.finished_at <= other.claimed_at <= other.finished_at  # type: ignore[operator]


def test_a_task_that_goes_on_has_no_result_yet(bench: Bench) -> None:
    for state in (State.PENDING, State.RUNNING, State.RETRYING):
        view = find_task(bench.ledger, bench.task_in(state))
        assert (view.result, view.finished_at) == (None, None)


def test_a_failure_has_an_error_and_no_result(bench: Bench) -> None:
    view = find_task(bench.ledger, bench.task_in(State.FAILED))
    assert (view.result, view.error and view.error["message"]) == (None, "it broke")


@pytest.mark.parametrize("task_id", ["nobody", "", "a\x00b", "\ud800", "x" * 300])
def test_a_task_that_is_not_there_is_not_found(bench: Bench, task_id: str) -> None:
    with pytest.raises(TaskNotFound):
        find_task(bench.ledger, task_id)


def test_times_bear_their_zone_and_are_the_same_moments_whatever_the_servers_is(bench: Bench) -> None:
    ((name,),) = bench.sql("SELECT current_database()")
    bench.sql(f"ALTER DATABASE {name} SET timezone = 'Asia/Tokyo'")
    bench.ledger.close()
    moment = datetime.now(UTC) + timedelta(hours=1)
    view = find_task(bench.ledger, bench.born(run_at=moment))
    assert view.created_at.utcoffset() is not None
    assert abs(datetime.now(UTC) - view.created_at) < timedelta(minutes=1)
    assert view.run_at == moment


def test_lists_are_newest_first_without_results(bench: Bench) -> None:
    tasks = [bench.task_in(State.COMPLETED) for _ in range(3)]
    with bench.transaction() as cursor:
        views, _ = queries.tasks(cursor, TaskFilter(), limit=10, max_bytes=PAGE_BYTES)
    assert [view.task_id for view in views] == tasks[::-1]
    assert {(view.result, view.executions) for view in views} == {(None, ())}


def test_each_filter_finds_what_has_that_in_common_and_all_of_them_together(bench: Bench) -> None:
    wanted = new_task(work_type="count", labels={"team": "a", "env": "x"}, request_id="r")
    others = [new_task(labels={"team": "b"}), new_task(work_type="count", labels={"a": "team"})]
    bench.accept(wanted, *others)
    bench.claimed(wanted.task_id, by=bench.agent("worker@here"))
    filters: dict[str, Any] = {
        "status": "running",
        "trace_id": wanted.trace_id,
        "request_id": "r",
        "agent_id": "worker@here",
        "label": ("team", "a"),
    }
    for name, value in filters.items():
        assert found(bench, **{name: value}) == [wanted.task_id], name
    assert found(bench, **filters, work_type="count") == [wanted.task_id]
    assert found(bench, **filters, work_type="echo") == []
    assert len(found(bench, work_type="count")) == 2
    assert found(bench, label=("team", "c")) == []


def test_a_label_with_odd_characters_is_a_label(bench: Bench) -> None:
    odd = {'q"uote': "50%", "path": "a/b:c=d"}
    task_id = bench.born(labels=odd)
    for label in odd.items():
        assert found(bench, label=label) == [task_id]


def test_since_is_included_and_until_is_not(bench: Bench) -> None:
    moments = []
    for _ in range(3):
        moments.append(bench.row(bench.born())["created_at"])
    one, other, last = found(bench)[::-1]
    assert found(bench, since=moments[1]) == [last, other]
    assert found(bench, until=moments[1]) == [one]
    assert found(bench, since=moments[1], until=moments[2]) == [other]


@pytest.mark.parametrize("size", [1, 2, 3, 7, 50])
def test_pages_show_each_task_once_even_when_many_are_equally_old(bench: Bench, size: int) -> None:
    for _ in range(7):
        bench.born()
    bench.sql("UPDATE tasks SET created_at = '2030-01-01' WHERE task_id IN (SELECT task_id FROM tasks LIMIT 5)")
    turned = pages(bench, size)
    assert [task_id for page in turned for task_id in page] == found(bench)
    assert [len(page) for page in turned[:-1]] == [size] * (len(turned) - 1)
    assert turned[-1]


def test_pages_do_not_repeat_what_is_new(bench: Bench) -> None:
    first = [bench.born() for _ in range(4)][::-1]
    page = find_tasks(bench.ledger, TaskFilter(), limit=2)
    bench.born()
    rest = find_tasks(bench.ledger, TaskFilter(after=page.next_after), limit=9)
    assert [view.task_id for view in (*page.tasks, *rest.tasks)] == first


def test_pages_of_a_filter_hold_what_fits_only(bench: Bench) -> None:
    tasks = [bench.task_in(state) for state in (State.PENDING, State.QUEUED) * 3]
    assert pages(bench, 2, status="queued") == [tasks[5:2:-2], tasks[1:2]]


def test_a_page_ends_where_its_parameters_become_large(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(find, "PAGE_BYTES", 2_000)
    tasks = [bench.born(parameters={"input": "x" * size}) for size in (3_000, 10, 3_000, 1_500, 1_500, 10)]
    assert pages(bench, 100) == [tasks[:2:-1], tasks[2:3], tasks[1::-1]]


@pytest.mark.parametrize("size", [63, 64, 65, 128])
def test_a_long_page_is_whole(bench: Bench, size: int) -> None:
    bench.accept(*(new_task() for _ in range(129)))
    assert [len(page) for page in pages(bench, size)] == {
        63: [63, 63, 3],
        64: [64, 64, 1],
        65: [65, 64],
        128: [128, 1],
    }[size]


def test_only_what_a_page_shows_is_measured(bench: Bench) -> None:
    with bench.transaction() as cursor:
        queries.tasks(Explaining(cursor, "VERBOSE"), TaskFilter(label=("team", "a")), limit=1, max_bytes=PAGE_BYTES)
        plan = [line for (line,) in cursor.fetchall()]
    (measured,) = [number for number, line in enumerate(plan) if "octet_length" in line]
    assert measured < next(number for number, line in enumerate(plan) if "Limit" in line), plan


def test_an_empty_list_is_one_empty_page(bench: Bench) -> None:
    page = find_tasks(bench.ledger, TaskFilter(status="failed"), limit=5)
    assert (list(page.tasks), page.next_after) == ([], None)


def test_several_are_read_at_once_with_their_results(bench: Bench) -> None:
    done, waiting = bench.task_in(State.COMPLETED), bench.task_in(State.PENDING)
    with bench.transaction() as cursor:
        views = queries.several(cursor, [done, waiting, "nobody"])
    assert {task_id: (view.status, view.result) for task_id, view in views.items()} == {
        done: ("completed", {"output": 1}),
        waiting: ("pending", None),
    }


def test_the_steps_are_told_in_order_from_any_number_on(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Crashed(an_error("killed")))
    everything = steps(bench, claim.task_id)
    assert [(step.number, step.status) for step in everything.steps] == [(1, "pending"), (2, "running"), (3, "pending")]
    assert not everything.is_over
    (last,) = steps(bench, claim.task_id, after=2).steps
    assert (last.detail, last.execution, last.agent_id) == ("crashed: killed", 1, "agent@bench")
    assert last.at <= datetime.now(UTC)


def test_the_steps_are_over_with_the_last_of_a_task_that_has_ended(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Completed("null"))
    found = [steps(bench, claim.task_id, after=after, limit=2) for after in (0, 2, 3)]
    assert [[step.number for step in some.steps] for some in found] == [[1, 2], [3], []]
    assert [some.is_over for some in found] == [False, True, True]


def test_who_is_not_there_has_no_steps(bench: Bench) -> None:
    with bench.transaction() as cursor:
        assert queries.steps(cursor, "nobody", after=0, limit=10) is None


def steps(bench: Bench, task_id: str, *, after: int = 0, limit: int = 10) -> TaskSteps:
    with bench.transaction() as cursor:
        found = queries.steps(cursor, task_id, after=after, limit=limit)
    assert found is not None
    return found


class Explaining:
    """A cursor that asks how a statement would be carried out."""

    def __init__(self, cursor: Any, how: str = "") -> None:
        self._cursor = cursor
        self._how = how

    def execute(self, statement: str, values: Any = None) -> None:
        if not statement.startswith("FETCH"):
            self._cursor.execute(f"EXPLAIN {self._how} {statement}", values)

    def fetchall(self) -> list[Any]:
        return []


def plan_of(bench: Bench, wanted: TaskFilter) -> str:
    """How Postgres would look for that, where 5,000 tasks succeeded that it does not fit."""
    bench.settle(bench.claimed(), Completed("{}"))
    bench.sql(
        "INSERT INTO tasks SELECT (jsonb_populate_record(t, jsonb_build_object('task_id', 'copy-' || n))).*"
        " FROM tasks t, generate_series(1, 5000) AS n"
    )
    bench.sql("ANALYZE tasks")
    with bench.transaction() as cursor:
        queries.tasks(Explaining(cursor), wanted, limit=100, max_bytes=PAGE_BYTES)
        return "\n".join(line for (line,) in cursor.fetchall())


@pytest.mark.parametrize("status", sorted(ENDS - {State.COMPLETED}))
def test_ends_that_need_a_look_are_not_searched_for_among_all_that_succeeded(bench: Bench, status: State) -> None:
    assert "ix_tasks_ends_to_look_at" in plan_of(bench, TaskFilter(status=status))
    assert found(bench, status=status) == []


def test_a_label_is_searched_for_among_the_tasks_that_have_some(bench: Bench) -> None:
    assert "ix_tasks_labelled" in plan_of(bench, TaskFilter(label=("team", "a")))
    labelled = bench.born(labels={"team": "a"})
    assert found(bench, label=("team", "a")) == [labelled]


def test_the_queues_are_counted_without_a_look_at_what_has_ended(bench: Bench) -> None:
    bench.in_every_state()
    with bench.transaction() as cursor:
        cursor.execute("SET LOCAL enable_seqscan = off")  # a look at all of it only where there is no other way
        cursor.execute(f"EXPLAIN {queries._QUEUES}")
        plan = "\n".join(line for (line,) in cursor.fetchall())
        (figures,) = queries.queues(cursor)
    assert "Seq Scan" not in plan, plan
    assert (figures.waiting, figures.running) == (2, 1)
