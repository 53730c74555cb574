"""The broker took a message and was not heard, a hand in the dead letters was cut off: nothing twice, none lost."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any
from urllib.parse import urlsplit

import amqp
import pytest

from chiffon.config import Settings
from chiffon.dispatch.ring import Debt, Ringer
from chiffon.domain import ids
from chiffon.domain.states import State
from chiffon.domain.tasks import Ring
from chiffon.ledger import rings, sweeps
from tests.api import DocumentedClient, api
from tests.bells import bare_channel, bell, dead_letter
from tests.bench import LEASE
from tests.chaos.relay import PUBLISH, STATEMENTS, Relay, Relays, wait_for
from tests.desk import Desk
from tests.doubt import Doubt
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.messages import envelope
from tests.e2e.waiting import eventually
from tests.proxy import through
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

PATIENCE = 10.0


@pytest.fixture
def unsafe_way(broker_url: str, relays: Relays) -> Relay:
    """A relay before the broker."""
    parts = urlsplit(broker_url)
    return relays.before(str(parts.hostname), int(parts.port or 5672))


@pytest.fixture
def channel(broker_url: str) -> Iterator[Any]:
    with bare_channel(broker_url) as channel:
        yield channel


def depth(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


def bury(channel: Any, body: bytes, **properties: Any) -> None:
    """Put a dead letter into `dlx_queue`."""
    channel.basic_publish(amqp.Message(body, **{"delivery_mode": 2} | properties), "dlx_exchange", "work_queue")


def bury_task(channel: Any, task_id: str) -> None:
    """Put the dead letter of a task there, as the ringer does."""
    said = dead_letter(bell(task_id=task_id), "it said no").message
    bury(channel, said.body, application_headers=dict(said.headers), **said.properties)


@pytest.fixture
def ringers(doubt: Doubt, broker_url: str, unsafe_way: Relay) -> Iterator[tuple[Ringer, Ringer]]:
    """A ringer that does not hear the broker when it is told so, and another that does."""
    urls = through(unsafe_way.port, broker_url), broker_url
    found = [Ringer(Settings(database_url=doubt.bench.url, broker_url=url), doubt.bench.ledger) for url in urls]
    for ringer in found:
        eventually("its connection", ringer.ready)
    yield found[0], found[1]
    for ringer in found:
        ringer.stop()


def leased(doubt: Doubt) -> list[Ring]:
    """The rings that are due."""
    with doubt.bench.transaction() as cursor:
        return rings.lease(cursor, limit=10, lease=LEASE)


def owed(doubt: Doubt) -> list[Debt]:
    """The dead letters that are to be published now."""
    with doubt.bench.transaction() as cursor:
        return [Debt(*debt) for debt in sweeps.debts(cursor, limit=10, older=0, lease=LEASE)]


def test_a_ring_whose_confirm_was_lost_is_rung_again_and_the_work_is_done_once(
    doubt: Doubt,
    ringers: tuple[Ringer, Ringer],
    unsafe_way: Relay,
    channel: Any,
    agents: Agents,
    desk: Desk,
    diary: Diary,
) -> None:
    task_id = doubt.bench.born(work_type="trap.sign", parameters={"path": str(diary.path)})
    doubt.bench.pass_time(LEASE)
    met = unsafe_way.swallow_answer(b"", PUBLISH)
    ringers[0].ring(leased(doubt))
    assert wait_for(met, PATIENCE)
    eventually("the message, of which nobody was told", lambda: depth(channel, "work_queue") == 1)
    assert doubt.bench.status(task_id) == "pending"

    doubt.bench.pass_time(2 * LEASE)
    ringers[1].ring(leased(doubt))
    eventually("the second ring", lambda: depth(channel, "work_queue") == 2)
    eventually("its confirm", lambda: doubt.bench.status(task_id) == "queued")
    agents.launch(concurrency=2, **DEEDS)

    desk.wait_for(task_id, "completed")
    eventually("both to be taken", lambda: depth(channel, "work_queue") == 0)
    assert len(diary.entries(task_id)) == 1
    assert desk.outcomes(task_id) == ["completed"]


def test_a_debt_that_was_paid_unheard_is_paid_again_and_shown_once(
    doubt: Doubt,
    ringers: tuple[Ringer, Ringer],
    unsafe_way: Relay,
    channel: Any,
    clients: tuple[DocumentedClient, DocumentedClient],
) -> None:
    task_id = doubt.bench.task_in(State.FAILED)
    met = unsafe_way.swallow_answer(b"", PUBLISH)
    ringers[0].ring(owed(doubt))
    assert wait_for(met, PATIENCE)
    eventually("the letter, of which nobody was told", lambda: depth(channel, "dlx_queue") == 1)
    assert doubt.bench.row(task_id)["dead_letter_owed"]
    assert owed(doubt) == [], "it is leased"

    doubt.bench.pass_time(LEASE)
    ringers[1].ring(owed(doubt))
    eventually("the debt to be cleared", lambda: not doubt.bench.row(task_id)["dead_letter_owed"])
    assert depth(channel, "dlx_queue") == 2
    shown = clients[0].get("/dead-letters").json
    assert shown is not None
    assert [letter["task_id"] for letter in shown["items"]] == [task_id]


@pytest.fixture
def clients(doubt: Doubt, broker_url: str, unsafe_way: Relay) -> tuple[DocumentedClient, DocumentedClient]:
    """The API, straight; and by ways on which an answer can be lost."""
    straight = api(database_url=doubt.bench.url, broker_url=broker_url)
    assert straight.get("/dead-letters").status_code == 200  # declares the topology
    return straight, api(database_url=doubt.url, broker_url=through(unsafe_way.port, broker_url))


def test_a_replay_of_a_dead_letter_that_was_not_answered_opens_its_task_once(
    doubt: Doubt, clients: tuple[DocumentedClient, DocumentedClient], channel: Any
) -> None:
    task_id = doubt.bench.task_in(State.FAILED)
    bury_task(channel, task_id)
    eventually("the letter", lambda: depth(channel, "dlx_queue") == 1)
    doubt.lose_next(STATEMENTS["replay"])

    lost = clients[1].post("/dead-letters/replay", json={"all": True})
    assert lost.status_code == 503
    eventually("the letter to be back", lambda: depth(channel, "dlx_queue") == 1)
    assert doubt.bench.history(task_id)[-2:] == ["failed", "pending"]

    again = clients[1].post("/dead-letters/replay", json={"all": True})
    assert again.status_code == 202
    assert again.json is not None
    assert (again.json["settled"], again.json["replayed"]) == (1, 0)
    eventually("the letter to be gone", lambda: depth(channel, "dlx_queue") == 0)
    assert doubt.bench.history(task_id).count("pending") == 2


@pytest.mark.parametrize("step", ["replay", "discard"])
def test_a_hand_that_is_cut_off_from_the_ledger_at_the_end_has_done_its_work(
    doubt: Doubt, clients: tuple[DocumentedClient, DocumentedClient], channel: Any, step: str
) -> None:
    bury(channel, b"anything")
    eventually("the letter", lambda: depth(channel, "dlx_queue") == 1)
    doubt.lose_next(b"pg_advisory_xact_lock")
    assert clients[1].post(f"/dead-letters/{step}", json={"all": True}).status_code in {202, 503}
    again = clients[1].post(f"/dead-letters/{step}", json={"all": True})
    assert again.status_code == 202
    assert again.json is not None
    assert again.json["matched"] == 0
    assert depth(channel, "dlx_queue") == 0
    assert depth(channel, "work_queue") == (step == "replay")


def test_a_foreign_letter_whose_republishing_was_not_confirmed_stays_and_its_copies_are_one_task(
    clients: tuple[DocumentedClient, DocumentedClient], channel: Any, unsafe_way: Relay
) -> None:
    foreign = envelope("echo", {"input": 1})
    bury(channel, json.dumps(foreign).encode(), content_type="application/json")
    eventually("the letter", lambda: depth(channel, "dlx_queue") == 1)
    met = unsafe_way.swallow_answer(b"", PUBLISH)

    lost = clients[1].post("/dead-letters/replay", json={"all": True})
    assert met.done()
    assert lost.status_code == 503 or lost.json["unconfirmed"] == 1  # type: ignore[index]
    eventually("the letter to be back", lambda: depth(channel, "dlx_queue") == 1)
    eventually("the message, of which nobody was told", lambda: depth(channel, "work_queue") == 1)

    again = clients[1].post("/dead-letters/replay", json={"all": True})
    assert again.json is not None
    assert again.json["replayed"] == 1
    eventually("the letter to be gone", lambda: depth(channel, "dlx_queue") == 0)
    copies = [json.loads(channel.basic_get("work_queue", no_ack=True).body) for _ in range(2)]
    assert {ids.derived_id("message", copy["message_id"]) for copy in copies} == {
        ids.derived_id("message", foreign["message_id"])
    }, "both are of one task, which the ledger runs once"
