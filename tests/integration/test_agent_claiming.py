"""Claiming many at once: what the ledger fails at, for no fault of the data, is no dead letter."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace
from typing import Any

import pytest

from chiffon.agent import continuations
from chiffon.agent.claiming import Claimer
from chiffon.agent.commands import Offer, Refused
from chiffon.agent.life import Identity, Life
from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.config import Settings
from chiffon.domain.states import State
from chiffon.domain.tasks import Claim, NewTask, Settled
from chiffon.domain.work import registry
from chiffon.ledger.accept import accept
from chiffon.ledger.connect import Cursor
from tests.bench import Bench
from tests.builders import new_task
from tests.deliveries import native

TROUBLE = """
CREATE FUNCTION refuse() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  IF NEW.task_id = TG_ARGV[0] THEN
    RAISE EXCEPTION 'no' USING ERRCODE = TG_ARGV[1];
  END IF;
  RETURN NEW;
END $$;
"""


class Silence:
    """A ringer that rings nothing."""

    def ring(self, rings: Iterable[object]) -> None:
        """Forget them."""


@pytest.fixture
def claimer(bench: Bench) -> Iterator[Claimer]:
    settings = Settings(database_url=bench.url)
    life = Life(bench.url, Identity("claimer", 1, ("work_queue",), ("echo",), "0"))
    life.begin()
    yield Claimer(settings, life, Reader(registry, {"echo": None}, 1_000), Silence())  # type: ignore[arg-type]
    life.drop()


def refuse(bench: Bench, task_id: str, state: str) -> None:
    """From here on Postgres says no, by an SQLSTATE, to whatever is done with a task."""
    bench.sql(TROUBLE)
    bench.sql(
        "CREATE TRIGGER trouble BEFORE INSERT OR UPDATE ON tasks FOR EACH ROW EXECUTE FUNCTION "
        f"refuse('{task_id}', '{state}')"
    )


@pytest.mark.parametrize("state", ["42501", "42883", "XX000"])
@pytest.mark.parametrize("is_direct", [False, True], ids=["a doorbell", "a direct message"])
def test_what_postgres_cannot_do_at_the_moment_is_claimed_once_it_can(
    bench: Bench, claimer: Claimer, state: str, is_direct: bool
) -> None:
    bad = Direct(new_task(origin="message")) if is_direct else Doorbell(bench.born())
    offers = [Offer(what, lambda fate: None) for what in (bad, Doorbell(bench.born()))]
    refuse(bench, offers[0].task_id, state)
    assert [(offer, type(fate)) for offer, fate in claimer.claim(offers)] == [(offers[1], Claim)]
    bench.sql("DROP TRIGGER trouble ON tasks")
    assert [(offer, type(fate)) for offer, fate in claimer.claim(offers)] == [(offer, Claim) for offer in offers]


def test_a_message_whose_keys_holder_is_forgotten_in_between_is_claimed_the_next_time(
    bench: Bench, claimer: Claimer, monkeypatch: pytest.MonkeyPatch
) -> None:
    holder = bench.task_in(State.COMPLETED, request_id="order-7")
    direct = new_task(request_id="order-7", origin="message", keyed=True)

    def accept_slowly(cursor: Cursor, tasks: Sequence[NewTask], *, lease: float) -> Any:
        found = accept(cursor, tasks, lease=lease)
        for table in ("request_keys", "tasks"):
            bench.sql(f"DELETE FROM {table} WHERE task_id = %s", holder)
        return found

    monkeypatch.setattr(continuations, "accept", accept_slowly)
    offers = [Offer(Direct(direct), lambda fate: None)]
    assert claimer.claim(offers) == []
    ((_, fate),) = claimer.claim(offers)
    assert isinstance(fate, Claim)


def test_what_postgres_refuses_for_its_data_is_refused(bench: Bench, claimer: Claimer) -> None:
    direct = new_task(origin="message")
    refuse(bench, direct.task_id, "22000")
    ((_, fate),) = claimer.claim([Offer(Direct(direct), lambda fate: None)])
    assert isinstance(fate, Refused)


def unread(task_id: str) -> NewTask:
    """What the reader makes of a message that it cannot read."""
    task = Reader(registry, {}, 1_000).remains(replace(native(id=task_id), body=b"{"))
    assert task is not None
    return task


def condemn(bench: Bench, task: NewTask) -> None:
    """Write down that nobody can run it."""
    with bench.transaction() as cursor:
        continuations.bear_condemned(cursor, task, "no \ud800, no \x00", Settings())


@pytest.mark.parametrize("state", [State.PENDING, State.RUNNING, State.COMPLETED])
def test_a_message_that_cannot_be_read_ends_no_task_that_is_there(bench: Bench, state: State) -> None:
    task_id = bench.task_in(state)
    before = bench.row(task_id)
    condemn(bench, unread(task_id))
    assert bench.row(task_id) == before


def test_what_could_not_be_read_is_told_with_its_reason(bench: Bench) -> None:
    condemn(bench, unread("unread"))
    assert bench.status("unread") == "dead_lettered"
    assert (bench.result("unread") or ("",))[0] == "FAILURE"


def test_what_nobody_can_run_is_told_though_its_key_is_another_tasks(bench: Bench) -> None:
    bench.born(request_id="taken")
    task = new_task(request_id="taken", parameters={"input": "another"})
    condemn(bench, task)
    assert bench.status(task.task_id) == "dead_lettered"


@pytest.mark.parametrize("keyed", [False, True])
def test_a_message_that_can_be_read_takes_the_place_of_one_that_could_not(
    bench: Bench, claimer: Claimer, keyed: bool
) -> None:
    task = new_task(keyed=keyed, origin="message")
    condemn(bench, unread(task.task_id))
    [(_, claim)] = claimer.claim([Offer(Direct(task), lambda fate: None)])
    assert isinstance(claim, Claim)
    assert claim.parameters == task.parameters
    assert bench.result(task.task_id) is None


@pytest.mark.parametrize("keyed", [False, True])
def test_a_message_takes_no_other_tasks_place(bench: Bench, claimer: Claimer, keyed: bool) -> None:
    task = new_task(keyed=keyed, origin="message")
    condemn(bench, task)
    [(_, fate)] = claimer.claim([Offer(Direct(task), lambda fate: None)])
    assert fate == Settled(task.task_id, "dead_lettered")
