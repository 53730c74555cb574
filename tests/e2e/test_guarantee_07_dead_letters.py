"""Guarantee 7: each dead letter that is owed arrives, once as far as anybody sees, and none is lost on its way back."""

from __future__ import annotations

import contextlib
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any
from urllib.parse import urlsplit

import pytest
import requests

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.chaos.relay import Relay, Relays
from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.broker_reader import unacknowledged
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually
from tests.proxy import through

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

MANY = 150
FAR = 0.03
"""Seconds that a word to the broker takes, and its answer again."""


def test_the_dead_letter_of_an_agent_that_dies_between_commit_and_reject_arrives_once(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    relays: Relays,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    relay = relays.before("127.0.0.1", rabbitmq.port)
    doomed = agents.start("doomed", broker_url=through(relay.port, mortal_broker.url))
    task_id = api.dispatch("test.fail_after", {"path": str(diary.path), "seconds": 2})
    eventually("the run to be under way", diary.entries)

    relay.fall_silent(True)  # the reject reaches nobody
    eventually("the failure to be settled", lambda: ledger.statuses() == {"failed": 1})
    assert ledger.task(task_id)["dead_letter_owed"]  # type: ignore[index]
    doomed.kill()
    relay.fall_silent(False)
    assert api.get("/dead-letters")["items"] == []
    agents.start("heir")

    eventually("the letter", lambda: api.get("/dead-letters")["items"])
    always("it", lambda: [one["task_id"] for one in api.get("/dead-letters")["items"]] == [task_id], during=3)
    eventually("the debt to be cleared", lambda: not ledger.task(task_id)["dead_letter_owed"])  # type: ignore[index]
    assert diary.notes() == ["begun"]
    assert api.post("/dead-letters/discard", {"all": True}).json()["discarded"] == 1
    assert amqp_client.ready("dlx_queue") == 0


def test_a_failure_whose_message_was_acknowledged_before_it_has_one_dead_letter_all_the_same(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    agents.start(ack_after=1)
    task_id = api.dispatch("test.fail_after", {"path": str(diary.path), "seconds": 8})
    eventually("the run to be under way", diary.entries)
    eventually("its message to be acknowledged", lambda: unacknowledged(rabbitmq, mortal_broker.url) == 0)
    assert ledger.outcomes(task_id) == [None]

    api.wait_for(task_id, "failed")

    eventually("the debt to be cleared", lambda: not ledger.task(task_id)["dead_letter_owed"])  # type: ignore[index]
    eventually("the letter", lambda: api.get("/dead-letters")["items"])
    always("it", lambda: [one["task_id"] for one in api.get("/dead-letters")["items"]] == [task_id], during=3)
    assert diary.notes() == ["begun"]


@pytest.fixture
def distant_broker(relays: Relays, celery_broker: BrokerNode) -> Relay:
    """A relay before the broker, to be made slow: what takes long enough can be killed in its middle."""
    address = urlsplit(celery_broker.url)
    return relays.before("127.0.0.1", address.port or 5672)


@contextlib.contextmanager
def asking(api: HttpClient, path: str, body: dict[str, Any]) -> Iterator[None]:
    """POST in the background. What is done meanwhile must have cost it its answer."""
    answers: list[requests.Response] = []

    def ask() -> None:
        with contextlib.suppress(requests.ConnectionError):
            answers.append(api.post(path, body))

    asker = threading.Thread(target=ask, daemon=True)
    asker.start()
    yield
    asker.join(30)
    assert not answers, f"it was over too soon: {answers[0].text}"


def test_an_api_that_is_killed_while_it_replays_many_letters_loses_none(
    apis: Apis,
    agents: Agents,
    amqp_client: RawAmqp,
    celery_broker: BrokerNode,
    distant_broker: Relay,
    diary: Diary,
    ledger: LedgerReader,
    tmp_path: Path,
) -> None:
    api = apis.start(broker_url=through(distant_broker.port, celery_broker.url))
    gate = tmp_path / "gate"
    agent = agents.start("first", concurrency=2)
    sent = api.dispatch_many([("test.pass_gate", {"path": str(diary.path), "gate": str(gate)})] * MANY)
    eventually("all of them to have failed", lambda: amqp_client.ready("dlx_queue") == MANY)
    agent.kill("SIGTERM")
    gate.touch()

    distant_broker.slow_down(FAR)
    with asking(api, "/dead-letters/replay", {"all": True}):
        eventually("some to be replayed", lambda: ledger.statuses()["failed"] <= MANY - 20)
        apis.kill()
    distant_broker.slow_down(0)
    assert 0 < ledger.statuses()["failed"] < MANY
    apis.resume()
    eventually("the rest to be back", lambda: amqp_client.ready("dlx_queue") > 0)
    assert api.post("/dead-letters/replay", {"all": True}).status_code == 202

    agents.start("second", concurrency=2)
    eventually("all to be done", lambda: ledger.statuses() == {"completed": MANY}, within=60)
    assert diary.has_each_once(sent)
    assert amqp_client.ready("dlx_queue") == 0


def test_an_api_that_is_killed_while_it_discards_many_letters_takes_no_other_along(
    apis: Apis, amqp_client: RawAmqp, celery_broker: BrokerNode, distant_broker: Relay
) -> None:
    api = apis.start(broker_url=through(distant_broker.port, celery_broker.url))
    assert api.get("/dead-letters")["items"] == []
    wanted = [b"wanted %d" % number for number in range(MANY // 2)]
    unwanted = [b"unwanted %d" % number for number in range(MANY // 2)]
    mixed = [body for pair in zip(wanted, unwanted, strict=True) for body in pair]
    amqp_client.publish(*mixed, exchange="dlx_exchange", routing_key="")
    letters = api.get("/dead-letters", limit=MANY)["items"]
    chosen = {"ids": [letter["id"] for letter in letters if letter["body"].startswith("unwanted")]}
    assert len(chosen["ids"]) == len(unwanted)

    distant_broker.slow_down(FAR)
    with asking(api, "/dead-letters/discard", chosen):
        eventually("it to be at work", lambda: amqp_client.ready("dlx_queue") <= MANY - 20)
        apis.kill()
    distant_broker.slow_down(0)

    def left() -> list[bytes]:
        return [letter.body for letter in amqp_client.look("dlx_queue")]

    eventually("what it had in hand to be back", lambda: set(wanted) <= set(left()))
    apis.resume()
    assert api.post("/dead-letters/discard", chosen).status_code == 202
    eventually("the unwanted to be gone", lambda: sorted(left()) == sorted(wanted))
