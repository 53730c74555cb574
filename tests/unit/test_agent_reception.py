"""The reception between the intake and the clerk."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from chiffon.agent.commands import Hopeless, Offer, Started
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Doorbell, Reader
from chiffon.agent.reception import Reception
from chiffon.agent.runs import Runs
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry
from tests.claimed import CLAIM, Books, Channel, app, claimed, delivery


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


BROKEN = {"input": {"__type__": "datetime", "__value__": "never"}}
"""Parameters that bear Celery's mark of a moment, and are none."""


def runs_with(books: Books, **consumer: Any) -> Runs:
    """The runs of an agent that has nothing in hand."""
    parts = {"app": app(), "hostname": "agent@test", "event_dispatcher": None, "connection_errors": ()} | consumer
    pace = Pace(0.0)
    line = Line(lambda turn: None, pace, None, lambda: 1)
    reader = Reader(registry, app().tasks, 1_000)
    return Runs(SimpleNamespace(**parts), Settings(), books, reader, pace, line, 1)  # type: ignore[arg-type]


def told(fate: Claim | Hopeless, *, ends: bool = False) -> Books:
    """The clerk of an agent that hears this fate of what it has offered."""
    books, nobody = Books(), SimpleNamespace(leave=lambda delivery: None, claimed=lambda *facts: None)
    parts: list[Any] = [nobody, nobody, nobody, books, runs_with(books)]
    reception = Reception(*parts, unknown_after=1.0, is_ending=lambda: ends)
    reception._on_fate(delivery(Channel()), Doorbell(CLAIM.task_id), fate)
    return books


def test_a_claim_that_cannot_even_be_given_back_is_ended() -> None:
    claim = CLAIM._replace(work_type="celery.accumulate", parameters=BROKEN)
    assert told(claim, ends=True).verdicts() == ["DeadLettered"]


def test_what_this_agent_does_not_know_is_another_ones_to_decode() -> None:
    claim = CLAIM._replace(work_type="of.a.newer.agent", parameters=BROKEN)
    assert told(claim).verdicts() == ["GivenBack"]
    [condemned] = told(Hopeless(claim)).settlements()
    assert condemned.settlement.verdict.error.type == "UnknownWorkType"  # type: ignore[union-attr]


def test_what_cannot_be_lined_up_once_it_is_noted_to_begin_is_ended() -> None:
    books = Books()
    runs = runs_with(books, task_buckets=None)
    runs.run(delivery(Channel()), CLAIM._replace(give_backs=1))
    [started] = [command for command in books.commands if isinstance(command, Started)]
    assert started.reply is not None
    started.reply()
    assert books.verdicts() == ["DeadLettered"]


def test_what_has_waited_for_its_rate_and_cannot_be_run_is_ended_and_keeps_no_slot() -> None:
    books = Books()
    turns: list[Any] = []
    Line(turns.append, Pace(0.0), None, lambda: 1).pass_by(claimed(books))

    def refuse(*args: Any, **options: Any) -> None:
        raise ValueError("it cannot be pickled")

    with pytest.raises(TaskRevokedError):
        turns[0].execute_using_pool(SimpleNamespace(apply_async=refuse))
    assert books.verdicts() == ["DeadLettered"]
