"""Two dispatches are the same when the work type and its canonical parameters are, and by nothing else."""

from __future__ import annotations

import re
from typing import Any

from chiffon.dispatch.submit import Order, prepare
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.work import WorkTypes, work

TYPES = WorkTypes()


@work("count", into=TYPES)
def count(text: str, times: int = 1, ratio: float = 0.5) -> None: ...


@work("count.twin", into=TYPES)
def twin(text: str, times: int = 1, ratio: float = 0.5) -> None: ...


@work("notes", into=TYPES)
def notes(**anything: Any) -> None: ...


def of(parameters: dict[str, Any], name: str = "count", **options: Any) -> str:
    """The fingerprint of a dispatch."""
    return prepare(Order(name, parameters, **options), TYPES).fingerprint


def test_it_is_a_sha_256_in_hex() -> None:
    assert re.fullmatch("[0-9a-f]{64}", fingerprint("count", {}))


def test_the_order_of_names_does_not_count() -> None:
    assert of({"text": "a", "times": 2}) == of({"times": 2, "text": "a"})


def test_a_default_that_is_spelled_out_is_the_default() -> None:
    assert of({"text": "a"}) == of({"text": "a", "times": 1, "ratio": 0.5})


def test_a_number_is_the_same_with_and_without_a_fraction_where_it_is_declared_so() -> None:
    assert of({"text": "a", "ratio": 1}) == of({"text": "a", "ratio": 1.0})


def test_parameters_and_work_type_count() -> None:
    several = [of({"text": "a"}), of({"text": "b"}), of({"text": "a", "times": 2}), of({"text": "a"}, "count.twin")]
    assert len(set(several)) == 4


def test_undeclared_parameters_count_too() -> None:
    assert of({"a": 1}, "notes") != of({"a": 2}, "notes")
    assert of({"a": {"x": 1, "y": 2}}, "notes") == of({"a": {"y": 2, "x": 1}}, "notes")


def test_nothing_else_counts() -> None:
    bare = of({"text": "a"})
    options: list[dict[str, Any]] = [
        {"priority": 5},
        {"request_id": "r"},
        {"trace_id": "0af7651916cd43dd8448eb211c80319c"},
        {"task_id": "t"},
        {"timeout_seconds": 3.0},
        {"max_retries": 7},
        {"delay_seconds": 9.0},
        {"expires_in_seconds": 9.0},
        {"labels": {"a": "b"}},
    ]
    assert {of({"text": "a"}, **option) for option in options} == {bare}


def test_a_name_cannot_be_moved_into_the_parameters() -> None:
    assert fingerprint("a", ["b"]) != fingerprint("ab", [])
