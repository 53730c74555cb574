"""What passes the check of values is kept by `jsonb` and read again as it was."""

from __future__ import annotations

import math
from collections.abc import Iterator
from datetime import UTC, datetime
from typing import Any

import psycopg2
import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from chiffon.dispatch.find import find_task, find_tasks
from chiffon.domain.errors import InvalidValue
from chiffon.domain.values import MAX_DEPTH, MAX_DIGITS, canonical, check_value
from chiffon.domain.verdicts import Completed
from chiffon.domain.views import TaskFilter
from chiffon.ledger.connect import open_session
from chiffon.ledger.failures import RefusedData
from tests.bench import Bench
from tests.builders import new_task

ANYTHING = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.integers(-(10**300), 10**300)
    | st.floats()
    | st.text()
    | st.text(st.characters(categories=["Cs", "Cc", "Zl", "So"])),
    lambda inner: st.lists(inner, max_size=4) | st.dictionaries(st.text(), inner, max_size=4),
    max_leaves=20,
)
REUSED = settings(deadline=None, max_examples=150, suppress_health_check=[HealthCheck.function_scoped_fixture])


@pytest.fixture
def cursor(bench: Bench) -> Iterator[Any]:
    """A cursor that outlives what is refused."""
    session = open_session(bench.url, "values")
    session.autocommit = True
    yield session.cursor()
    session.close()


def as_doubles(value: Any) -> Any:
    """A value whose floats are compared as any JSON parser would: `jsonb` writes 1e16 as an integer."""
    if isinstance(value, int | float) and not isinstance(value, bool):
        return float(value) if 2**53 < abs(value) < 2**1024 - 2**970 else value
    if isinstance(value, dict):
        return {name: as_doubles(member) for name, member in value.items()}
    return [as_doubles(member) for member in value] if isinstance(value, list) else value


def kept(cursor: Any, value: Any) -> Any:
    """What Postgres reads again of a value."""
    cursor.execute("SELECT %s::jsonb", (canonical(value),))
    return cursor.fetchone()[0]


@REUSED
@given(value=ANYTHING)
def test_whatever_passes_is_kept_as_it_was(cursor: Any, value: Any) -> None:
    try:
        check_value(value)
    except InvalidValue:
        return
    assert as_doubles(kept(cursor, value)) == as_doubles(value)


@pytest.mark.parametrize(
    "value",
    [
        10**MAX_DIGITS - 1,
        -(10**MAX_DIGITS) + 1,
        1.7976931348623157e308,
        5e-324,
        0.1,
        "\x01\x1f\x7f\u2028\ufffe\uffff",
        {"": {"": [[], {}]}},
        {"a": 1, "A": 2, "ä": 3},
        "x" * 1_000_000,
        list(range(100_000)),
    ],
    ids=lambda value: str(value)[:20],
)
def test_the_extremes_that_pass_are_kept(cursor: Any, value: Any) -> None:
    check_value(value)
    assert as_doubles(kept(cursor, value)) == as_doubles(value)


def test_an_integer_is_kept_to_its_last_digit(cursor: Any) -> None:
    for value in (2**53 + 1, 2**63, 10**MAX_DIGITS - 1):
        assert kept(cursor, value) == value


def test_the_deepest_nesting_that_passes_is_kept(cursor: Any) -> None:
    value: Any = 0
    for _ in range(MAX_DEPTH):
        value = {"a": [value]}
        try:
            check_value(value)
        except InvalidValue:
            return
        assert kept(cursor, value) == value
    pytest.fail("there was no end to it")


@pytest.mark.parametrize("value", ["a\x00b", {"a\x00b": 1}, math.nan, math.inf])
def test_what_is_refused_by_the_check_jsonb_would_refuse_or_json_cannot_say(cursor: Any, value: Any) -> None:
    with pytest.raises(InvalidValue):
        check_value(value)
    with pytest.raises((psycopg2.DataError, ValueError)):
        kept(cursor, value)


@settings(deadline=None, max_examples=30, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(parameters=st.dictionaries(st.text(max_size=5), ANYTHING, max_size=3), result=ANYTHING)
def test_parameters_and_results_come_back_as_they_were_or_are_refused(
    bench: Bench, parameters: dict[str, Any], result: Any
) -> None:
    try:
        check_value([parameters, result])
    except InvalidValue:
        return
    task = new_task(parameters=parameters, fingerprint="x")
    bench.accept(task)
    claim = bench.claimed(task.task_id)
    assert as_doubles(claim.parameters) == as_doubles(parameters)
    bench.settle(claim, Completed(canonical(result)))
    assert as_doubles(find_task(bench.ledger, task.task_id).result) == as_doubles(result)


@pytest.mark.parametrize("moment", [datetime(1970, 1, 1, tzinfo=UTC), datetime(9998, 12, 31, 23, 59, 59, tzinfo=UTC)])
def test_the_first_and_the_last_moment_that_any_door_lets_in_can_be_read(bench: Bench, moment: datetime) -> None:
    ((name,),) = bench.sql("SELECT current_database()")
    for zone in ("Pacific/Kiritimati", "Pacific/Pago_Pago"):
        bench.sql(f"ALTER DATABASE {name} SET timezone = '{zone}'")
        bench.ledger.close()
        task_id = bench.born(run_at=moment, expires_at=moment)
        assert find_task(bench.ledger, task_id).expires_at == moment
        assert find_tasks(bench.ledger, TaskFilter(), limit=9).tasks


def test_a_result_of_a_megabyte_is_kept(bench: Bench) -> None:
    claim = bench.claimed()
    bench.settle(claim, Completed(canonical("ü" * 1_000_000)))
    assert find_task(bench.ledger, claim.task_id).result == "ü" * 1_000_000


def test_one_bad_value_spoils_its_whole_statement_and_nothing_of_it_is_written(bench: Bench) -> None:
    good, bad = new_task(), new_task(parameters={"input": "\x00"})
    with pytest.raises(RefusedData):
        bench.accept(good, bad)
    assert bench.sql("SELECT count(*) FROM tasks") == [(0,)]
