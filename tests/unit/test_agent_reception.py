"""The reception between the intake and the clerk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest

from chiffon.agent.commands import Offer
from chiffon.agent.reading import Doorbell
from chiffon.agent.reception import Reception


class Clerk:
    """Keeps what it is told."""

    def __init__(self) -> None:
        self.told: list[Any] = []

    def tell(self, command: Any) -> None:
        """Keep it."""
        self.told.append(command)


@pytest.mark.parametrize("ends", [False, True])
def test_what_comes_while_an_agent_ends_is_left_to_others(ends: bool) -> None:
    intake: Any = SimpleNamespace(admit=lambda: iter([(SimpleNamespace(), Doorbell("task"))]))
    clerk, nobody = Clerk(), SimpleNamespace()
    parts: list[Any] = [nobody, intake, nobody, clerk, nobody]
    Reception(*parts, unknown_after=1.0, is_ending=lambda: ends).offer_waiting()
    assert [isinstance(command, Offer) for command in clerk.told] == ([] if ends else [True])
