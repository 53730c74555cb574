"""A tree of results is read as Celery writes it."""

from __future__ import annotations

import pytest
from celery import Celery
from celery.result import GroupResult, result_from_tuple

from chiffon.domain.trees import filled, leaves

TREE = [["outer", None], [[["a", None], None], [["inner", ["parent", None]], [[["b", None], None], ["c", None]]]]]


def test_leaves_come_in_the_order_of_the_header() -> None:
    assert list(leaves(TREE)) == ["a", "b", "c"]


def test_every_group_becomes_a_list_of_its_values() -> None:
    assert filled(TREE, {"a": 1, "b": 2, "c": 3}) == [1, [2, 3]]


def test_a_task_alone_is_its_value() -> None:
    assert filled([["a", None], None], {"a": 1}) == 1


def test_a_group_without_tasks_is_an_empty_list() -> None:
    assert filled([["g", None], []], {}) == []


def test_a_task_without_a_value_is_an_error() -> None:
    with pytest.raises(KeyError):
        filled(TREE, {"a": 1})


def test_celery_reads_the_same_tree() -> None:
    app = Celery("reader", backend="cache+memory://", set_as_current=False)
    group = result_from_tuple(TREE, app)
    assert isinstance(group, GroupResult)
    assert list(leaves(group.as_tuple())) == list(leaves(TREE))
