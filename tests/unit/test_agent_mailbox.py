"""The event loop makes the calls of other threads one a turn, all of them, and stops for none that fails."""

from __future__ import annotations

import select
from collections.abc import Callable
from typing import Any

import pytest

from chiffon.agent.mailbox import Mailbox


class Loop:
    """An event loop that watches one pipe."""

    def __init__(self) -> None:
        self.mailbox = Mailbox()
        self.mailbox.register(self)

    def add_reader(self, fd: int, call: Callable[[], None]) -> None:
        """As kombu's hub has it."""
        self._fd, self._call = fd, call

    @property
    def is_woken(self) -> bool:
        """Whether there is a reason for a turn."""
        return bool(select.select([self._fd], [], [], 0)[0])

    def turn(self) -> None:
        """Go around once."""
        assert self.is_woken
        self._call()


@pytest.fixture
def loop() -> Loop:
    return Loop()


def test_each_turn_makes_one_call_and_what_follows_it(loop: Loop) -> None:
    made: list[Any] = []
    loop.mailbox.after = lambda: made.append("after")
    for number in range(3):
        loop.mailbox.post(lambda number=number: made.append(number))  # type: ignore[misc]
    for number in range(3):
        loop.turn()
        assert made == [said for n in range(number + 1) for said in (n, "after")]
    assert not loop.is_woken


def test_what_is_posted_by_a_call_or_once_it_is_empty_wakes_again(loop: Loop) -> None:
    made: list[str] = []
    loop.mailbox.post(lambda: loop.mailbox.post(lambda: made.append("by a call")))
    loop.turn()
    loop.turn()
    assert (made, loop.is_woken) == (["by a call"], False)
    loop.mailbox.post(lambda: made.append("later"))
    loop.turn()
    assert made == ["by a call", "later"]


def test_a_call_that_fails_holds_up_no_other(loop: Loop) -> None:
    made: list[str] = []
    loop.mailbox.post(lambda: 1 / 0 and None)
    loop.mailbox.post(lambda: made.append("next"))
    loop.turn()
    loop.turn()
    assert made == ["next"]


def test_who_ends_makes_all_of_them_at_once(loop: Loop) -> None:
    made: list[int] = []
    for number in range(3):
        loop.mailbox.post(lambda number=number: made.append(number))  # type: ignore[misc]
    loop.mailbox.open()
    assert made == [0, 1, 2]
