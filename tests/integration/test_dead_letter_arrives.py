"""A dead letter that a silent connection swallowed is owed until it has arrived after all."""

from __future__ import annotations

from collections.abc import Iterator
from urllib.parse import urlsplit

import pytest

from tests.chaos.relay import Relay, Relays
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually
from tests.proxy import through
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

BELIEVED_AFTER = 5.0
"""Seconds, more than the two that an agent gives the broker."""


@pytest.fixture
def relay(celery_broker: BrokerNode) -> Iterator[Relay]:
    """A relay before the broker."""
    relays = Relays()
    parts = urlsplit(celery_broker.url)
    assert parts.hostname is not None
    assert parts.port is not None
    yield relays.before(parts.hostname, parts.port)
    relays.close()


def test_a_reject_into_a_dead_connection_pays_nothing(
    relay: Relay, agents: Agents, desk: Desk, celery_broker: BrokerNode, amqp_client: RawAmqp
) -> None:
    agents.start(broker_url=through(relay.port, celery_broker.url), **DEEDS)
    task_id = desk.place("shell.run", {"argv": ["sh", "-c", "sleep 2; exit 3"]})
    desk.wait_for(task_id, "running")
    relay.fall_silent(True)
    owed = desk.wait_for(task_id, "failed")
    assert owed["dead_letter_owed"]

    def still_owed() -> bool:
        return bool((desk.reader.task(task_id) or {})["dead_letter_owed"])

    always("the debt", still_owed, during=BELIEVED_AFTER)
    relay.fall_silent(False)
    eventually("the debt to be paid", lambda: not still_owed(), within=60)
    assert task_id in {letter.headers.get("id") for letter in amqp_client.look("dlx_queue")}


def test_a_reject_that_the_broker_has_heard_pays_before_a_sweeper_would(
    agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agents.start(**DEEDS)
    task_id = desk.place("fail", {"message": "no"})
    desk.wait_for(task_id, "failed")
    eventually("the debt to be paid", lambda: not (desk.reader.task(task_id) or {})["dead_letter_owed"])
    [letter] = amqp_client.look("dlx_queue")
    assert letter.headers["id"] == task_id
    assert letter.deaths[0]["reason"] == "rejected"
