"""The consumer between its intake and its clerk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.commands import Offer
from chiffon.agent.consumer import LedgerConsumer
from chiffon.agent.reading import Doorbell


class Clerk:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, command: Any) -> None:
        """Keep it."""
        self.told.append(command)


@pytest.mark.parametrize("ends", [False, True])
def test_what_comes_while_an_agent_ends_is_left_to_others(ends: bool) -> None:
    consumer: Any = object.__new__(LedgerConsumer)
    waiting = [(SimpleNamespace(), Doorbell("task"))]
    consumer._drain = SimpleNamespace(begun=ends)
    consumer._intake = SimpleNamespace(admit=lambda: iter(waiting))
    consumer._clerk = Clerk()
    consumer._offer_waiting()
    assert [isinstance(command, Offer) for command in consumer._clerk.told] == ([] if ends else [True])
