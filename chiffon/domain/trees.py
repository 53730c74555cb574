"""The tree of a group's results, as Celery writes it down: who is in it, in which order, and what came of each.

A node is ``[[id, parent], nodes]``: ``nodes`` is None for a task, and a list of nodes for a group.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, TypeVar

T = TypeVar("T")


def leaves(tree: Sequence[Any]) -> Iterator[str]:
    """The ids of the tasks in the tree, in its order; one that is in it twice comes twice."""
    identity, nodes = tree
    if nodes is None:
        yield identity if isinstance(identity, str) else identity[0]
        return
    for node in nodes:
        yield from leaves(node)


def filled(tree: Sequence[Any], values: Mapping[str, T]) -> Any:
    """The tree with each task's value in its place: a list for every group. Raises KeyError for one without."""
    identity, nodes = tree
    if nodes is None:
        return values[identity if isinstance(identity, str) else identity[0]]
    return [filled(node, values) for node in nodes]
