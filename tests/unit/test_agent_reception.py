"""The reception between the intake and the clerk."""

from __future__ import annotations

import math
from dataclasses import replace
from types import SimpleNamespace
from typing import Any

import pytest
from celery.exceptions import TaskRevokedError

from chiffon.agent.commands import Condemned, Hopeless, Offer, Refused, Started
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.agent.reception import Reception
from chiffon.agent.runs import Runs
from chiffon.bus.letters import DOORBELL
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry
from tests.builders import new_task
from tests.claimed import CLAIM, Books, Channel, app, claimed, delivery
from tests.deliveries import Delivery, native


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


class Refusing:
    """A delivery that is only ever dead-lettered."""

    def __init__(self, message: Any) -> None:
        self.message = message
        self.told: list[str] = []

    def dead_letter(self) -> None:
        """Note it."""
        self.told.append("dead-lettered")


def reception(clerk: Clerk) -> Reception:
    """The reception of an agent that knows what there is."""
    intake: Any = SimpleNamespace(take=Refusing, leave=lambda delivery: None)
    parts: list[Any] = [Reader(registry, {}, 1_000), intake, SimpleNamespace(), clerk, SimpleNamespace()]
    return Reception(*parts, unknown_after=1.0, is_ending=lambda: False)


UNREADABLE: dict[str, Any] = {
    "NaN": native([math.nan]),
    "NUL": native(["\x00"]),
    "pickled": replace(native(), content_type="application/x-python-serialize"),
    "not JSON": replace(native(), body=b"{"),
    "deep": replace(native(), body=b"[" * 5000 + b"]" * 5000),
    "too large": native(["x" * 2000]),
    "its limits": native(timelimit=7),
    "its headers": native(mine="x" * 40_000),
    "its name": native(task={"a": 1}),
}


@pytest.mark.parametrize("message", UNREADABLE.values(), ids=UNREADABLE)
def test_whoever_waits_for_a_message_that_cannot_be_read_hears_of_it(message: Any) -> None:
    clerk = Clerk()
    reception(clerk).take(message)
    [condemned] = clerk.told
    assert isinstance(condemned, Condemned)
    assert (condemned.task.task_id, condemned.task.keyed) == ("task-1", False)
    assert condemned.task.work_type == "chiffon.unreadable", "nobody may run it without its parameters"
    assert (condemned.task.parameters, condemned.task.arguments) == ({}, [])
    assert condemned.reason


def test_whoever_waits_for_what_cannot_even_be_taken_apart_hears_of_it() -> None:
    clerk = Clerk()
    reception(clerk).refuse(native(), ValueError("larger than 10"))
    assert [(told.task.task_id, told.reason) for told in clerk.told] == [("task-1", "larger than 10")]


@pytest.mark.parametrize(
    "message",
    [
        replace(native(id=None), body=b"{"),
        replace(native(id="a\x00b"), body=b"{"),
        replace(native(id=["task-1"]), body=b"{"),
        Delivery(b"{", {"id": "task-1"}),
        Delivery(b"{", {DOORBELL: 1, "task": "echo", "id": ""}),
        Delivery(b"{"),
        replace(native(), headers=None),
        replace(native(), headers=[("task", "echo")]),
    ],
)
def test_what_names_no_task_is_only_dead_lettered(message: Any) -> None:
    clerk = Clerk()
    reception(clerk).take(message)
    assert clerk.told == []


def test_whoever_waits_for_what_the_ledger_refuses_hears_of_it() -> None:
    clerk, task = Clerk(), new_task(request_id="another's")
    refusing: Any = Refusing(native())
    reception(clerk)._on_fate(refusing, Direct(task), Refused("its request_id belongs to another"))
    assert clerk.told == [Condemned(task, "its request_id belongs to another")]
    assert refusing.told == ["dead-lettered"]
