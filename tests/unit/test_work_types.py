"""`@work`: what can be declared, and what is known of it."""

from __future__ import annotations

import re
from typing import Annotated, Any

import pytest

from chiffon.domain.context import WorkContext
from chiffon.domain.errors import UnknownWorkType
from chiffon.domain.retry import RetryPolicy
from chiffon.domain.work import DEFAULT_QUEUE, WorkTypeError, WorkTypes, work


@pytest.fixture
def types() -> WorkTypes:
    return WorkTypes()


def nothing() -> None:
    """Do nothing."""


def test_the_function_stays_what_it_was(types: WorkTypes) -> None:
    assert work("nothing", into=types)(nothing) is nothing


def test_a_work_type_is_known_by_its_name_with_its_limits(types: WorkTypes) -> None:
    policy = RetryPolicy(base=2)
    work(
        "text.count",
        timeout=30,
        retries=3,
        backoff=policy,
        queue="gpu",
        dead_letter=False,
        retry_timeouts=True,
        into=types,
    )(nothing)
    found = types.get("text.count")
    assert (found.timeout, found.retries, found.policy, found.queue) == (30, 3, policy, "work_queue.gpu")
    assert (found.dead_letter, found.retry_timeouts, found.description) == (False, True, "Do nothing.")


def test_work_is_not_repeated_unless_it_says_so(types: WorkTypes) -> None:
    work("nothing", into=types)(nothing)
    found = types.get("nothing")
    assert (found.retries, found.retry_timeouts, found.timeout, found.queue) == (0, False, None, DEFAULT_QUEUE)
    assert found.dead_letter


@pytest.mark.parametrize("name", ["", "1st", ".a", "a b", "a/b", "a\n", "a" * 201, "a:b"])
def test_a_name_that_would_need_escaping_is_refused(name: str, types: WorkTypes) -> None:
    with pytest.raises(WorkTypeError, match="is no name for a work type"):
        work(name, into=types)


@pytest.mark.parametrize("name", ["a", "A_b-c.d9", "a" * 200])
def test_other_names_are_taken(name: str, types: WorkTypes) -> None:
    work(name, into=types)(nothing)
    assert name in types


@pytest.mark.parametrize(
    "wrong",
    [
        {"queue": ""},
        {"queue": "GPU"},
        {"queue": "a b"},
        {"queue": "-a"},
        {"queue": "a" * 101},
        {"timeout": 0},
        {"timeout": -1},
        {"timeout": float("nan")},
        {"retries": -1},
    ],
)
def test_limits_that_cannot_work_are_refused(wrong: dict[str, Any], types: WorkTypes) -> None:
    with pytest.raises(WorkTypeError):
        work("nothing", into=types, **wrong)


def test_two_functions_with_one_name_are_an_error_that_names_both(types: WorkTypes) -> None:
    def other() -> None: ...

    work("nothing", into=types)(nothing)
    with pytest.raises(WorkTypeError, match=r"test_work_types\.nothing and .*other"):
        work("nothing", into=types)(other)


def test_the_same_function_may_be_registered_again(types: WorkTypes) -> None:
    work("nothing", into=types)(nothing)
    work("nothing", timeout=5, into=types)(nothing)
    assert types.get("nothing").timeout == 5


def test_work_types_are_listed_by_name_and_their_queues_once_each(types: WorkTypes) -> None:
    for name, family in [("c", "gpu"), ("a", None), ("b", "gpu"), ("d", "disk")]:
        work(name, queue=family, into=types)(nothing)
    assert [known.name for known in types] == ["a", "b", "c", "d"]
    assert types.queues == ("work_queue", "work_queue.disk", "work_queue.gpu")


def test_an_unknown_name_gets_the_nearest_known_ones(types: WorkTypes) -> None:
    for name in ("echo", "slow_echo", "shell.run"):
        work(name, into=types)(nothing)
    with pytest.raises(UnknownWorkType, match="unknown work type 'ecko'; did you mean echo") as caught:
        types.get("ecko")
    assert caught.value.nearest[0] == "echo"
    assert caught.value.problems[0].pointer == "/work_type"


def test_an_unknown_name_that_is_like_no_other_gets_the_way_to_the_list(types: WorkTypes) -> None:
    work("echo", into=types)(nothing)
    with pytest.raises(UnknownWorkType, match="GET /work-types"):
        types.get("zzz")


def test_what_a_stranger_sends_as_a_name_is_told_without_harm(types: WorkTypes) -> None:
    with pytest.raises(UnknownWorkType) as caught:
        types.get("\x00\ud800\n")
    str(caught.value).encode()
    assert "\n" not in str(caught.value)


@pytest.mark.parametrize("declaration", ["def f(*args): ...", "def f(a, /): ...", "def f(a, /, b): ..."])
def test_parameters_without_a_name_are_refused(declaration: str, types: WorkTypes) -> None:
    scope: dict[str, Any] = {}
    exec(declaration, scope)  # noqa: S102  -- a parameter list as a case
    with pytest.raises(WorkTypeError, match="given by name"):
        work("f", into=types)(scope["f"])


def test_a_type_that_json_cannot_fill_is_refused_where_it_is_declared(types: WorkTypes) -> None:
    def read(pattern: Any, lock: re.Scanner) -> None: ...  # type: ignore[name-defined]

    with pytest.raises(WorkTypeError, match="read"):
        work("read", into=types)(read)


def test_a_type_that_cannot_be_found_is_refused_where_it_is_declared(types: WorkTypes) -> None:
    def read(value: Nowhere) -> None: ...  # type: ignore[name-defined]  # noqa: F821

    with pytest.raises(WorkTypeError, match="Nowhere"):
        work("read", into=types)(read)


def test_two_contexts_are_one_too_many(types: WorkTypes) -> None:
    def read(one: WorkContext, other: WorkContext) -> None: ...

    with pytest.raises(WorkTypeError, match="WorkContext"):
        work("read", into=types)(read)


def test_the_context_is_no_parameter_that_a_caller_could_give(types: WorkTypes) -> None:
    def plain(a: int, context: WorkContext) -> None: ...

    def optional(context: WorkContext | None = None) -> None: ...

    def annotated(context: Annotated[WorkContext, "whatever"]) -> None: ...

    for function in (plain, optional, annotated):
        work(function.__name__, into=types)(function)
        found = types.get(function.__name__)
        assert found.context_parameter == "context"
        assert "context" not in found.schema.get("properties", {})
