"""Who has much to do in the background gives way to others, and leaves nothing out for it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest

from chiffon import courtesy
from chiffon.courtesy import EVERY, courteously


def test_every_item_comes_in_its_order_with_a_moment_after_each_few(monkeypatch: pytest.MonkeyPatch) -> None:
    done: list[object] = []
    monkeypatch.setattr(courtesy, "time", SimpleNamespace(sleep=lambda _: done.append("gave way")))
    for item in courteously(range(2 * EVERY + 1)):
        done.append(item)
    first, second = range(EVERY), range(EVERY, 2 * EVERY)
    assert done == [*first, "gave way", *second, "gave way", 2 * EVERY]


def test_who_has_little_to_do_does_not_give_way(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(courtesy, "time", SimpleNamespace(sleep=lambda _: pytest.fail("gave way")))
    assert list(courteously("abc")) == ["a", "b", "c"]
