"""Guarantee 4: without Postgres the API says so at once, what runs is finished and kept, and nothing new is taken."""

from __future__ import annotations

import contextlib
import time
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager
from signal import SIGTERM

import pytest

from chiffon.devstack.postgres import PrivatePostgres
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.e2e.agents import Agents
from tests.e2e.broker_reader import unacknowledged
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.messages import envelope
from tests.e2e.nodes import AgentNode, BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

AWAY_FOR = 12  # seconds: longer than any single patience of those who wait for Postgres
A_MINUTE = 60  # seconds, by the guarantee
PATIENCE_WITH_POSTGRES = 10.0
"""Seconds, by the guarantee, after which one that does not answer is taken for away. Who is gone is not waited for."""

KNOWN_TO_HANG_AFTER = 20.0
"""Seconds, by the guarantee "some 15", until one that hangs is known to: that patience, and a login."""


@contextlib.contextmanager
def killed(postgres: PrivatePostgres) -> Iterator[None]:
    """Postgres is gone: connections are refused."""
    postgres.kill()
    try:
        yield
    finally:
        postgres.start()


@contextlib.contextmanager
def hanging(postgres: PrivatePostgres) -> Iterator[None]:
    """Postgres is stopped in its tracks: connections stay open, new ones are taken, and nothing answers."""
    postgres.pause()
    try:
        yield
    finally:
        postgres.resume()


Outage = Callable[[PrivatePostgres], AbstractContextManager[None]]


@pytest.mark.parametrize("outage", [killed, hanging])
def test_while_postgres_is_away_agents_finish_and_keep_what_runs_and_begin_nothing(
    outage: Outage,
    postgres: PrivatePostgres,
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    agents.start(concurrency=3)
    running = api.dispatch("test.run", {"path": str(diary.path), "seconds": 4})
    eventually("the run to be under way", lambda: diary.notes(running) == ["begun"])

    with outage(postgres):
        amqp_client.publish_json(envelope("test.append", diary.parameters("direct"), task_id="direct"))
        eventually("the run to be over", lambda: diary.notes(running) == ["begun", "ended"])
        always("what was begun", lambda: set(diary.task_ids()) == {running}, during=AWAY_FOR)
        assert unacknowledged(rabbitmq, mortal_broker.url) == 2

    eventually("both to be settled", lambda: ledger.statuses() == {"completed": 2})
    assert ledger.outcomes(running) == ["completed"]
    assert diary.notes() == ["begun", "ended", "direct"]


@pytest.mark.parametrize("outage", [killed, hanging])
def test_while_postgres_is_away_callers_are_told_at_once_and_may_repeat_themselves(
    outage: Outage,
    postgres: PrivatePostgres,
    api: HttpClient,
    celery_worker: AgentNode,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    first = api.dispatch("test.append", diary.parameters("before"))
    api.wait_for(first, "completed")
    order = {"work_type": "test.append", "parameters": diary.parameters("order"), "request_id": "order-7"}
    within = PATIENCE_WITH_POSTGRES if outage is killed else KNOWN_TO_HANG_AFTER

    def is_refused_in_time() -> bool:
        began = time.monotonic()
        answer = api.post("/dispatch", order)
        assert answer.status_code == 503, answer.text
        assert int(answer.headers["Retry-After"]) > 0
        return time.monotonic() - began < within

    with outage(postgres):
        always("the refusal", is_refused_in_time, during=AWAY_FOR)

    again = [api.post("/dispatch", order) for _ in range(2)]
    assert {answer.status_code for answer in again} <= {200, 202}
    (task_id,) = {answer.json()["task_id"] for answer in again}
    api.wait_for(task_id, "completed")
    assert diary.has_each_once([first, task_id])
    assert ledger.count("executions") == 2


def test_a_minute_without_postgres_costs_neither_what_runs_nor_what_waits(
    postgres: PrivatePostgres,
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    agents.start_team("first", "second", concurrency=2, ack_after=5)
    running = api.dispatch_many([("test.run", {"path": str(diary.path), "seconds": 20})] * 2)
    eventually("both runs to be under way", lambda: diary.notes() == ["begun", "begun"])
    eventually("both to be the ledger's", lambda: unacknowledged(rabbitmq, mortal_broker.url) == 0)
    assert ledger.statuses() == {"running": 2}

    with killed(postgres):
        amqp_client.publish_json(envelope("test.append", diary.parameters("direct"), task_id="direct"))
        always("what was begun", lambda: set(diary.task_ids()) == set(running), during=A_MINUTE)
        assert diary.notes() == ["begun", "begun", "ended", "ended"]
        assert unacknowledged(rabbitmq, mortal_broker.url) + amqp_client.ready("work_queue") == 1

    eventually("all to be settled", lambda: ledger.statuses() == {"completed": 3})
    for task_id in running:
        assert ledger.outcomes(task_id) == ["completed"]
        assert api.task(task_id)["result"] == {"pid": diary.entries(task_id)[0].pid}
    assert diary.notes()[4:] == ["direct"]


def test_an_agent_that_is_told_to_end_while_postgres_is_away_waits_for_it_and_settles(
    postgres: PrivatePostgres, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    leaving = agents.start("leaving")
    task_id = api.dispatch("test.run", {"path": str(diary.path), "seconds": 4})
    eventually("the run to be under way", lambda: diary.notes() == ["begun"])

    with killed(postgres):
        leaving.container.signal(SIGTERM)
        always("the agent", lambda: leaving.container.exit_code is None, during=10)
        assert diary.notes() == ["begun", "ended"]

    eventually("it to be gone", lambda: leaving.container.exit_code is not None)
    assert leaving.container.exit_code == 0
    assert ledger.outcomes(task_id) == ["completed"]
    assert api.task(task_id)["result"] == {"pid": diary.entries(task_id)[0].pid}
