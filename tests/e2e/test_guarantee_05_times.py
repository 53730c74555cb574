"""Guarantee 5: what is for later is in the ledger: it outlives everybody, is rung in time, and costs agents nothing."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta

import amqp
import psutil
import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.broker_reader import unacknowledged
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.nodes import AgentNode, BrokerNode
from tests.e2e.raw_amqp import PERSISTENT, RawAmqp
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

LATER = 15.0  # seconds: everything is down meanwhile
WINDOW = 60.0  # seconds: everything is killed, and up again, within them
MANY = 100_000
SOME = 500
"""Messages with an ETA that an agent takes in: what is scheduled by SQL never passes through one."""

COPY = """
INSERT INTO tasks (task_id, request_id, trace_id, work_type, status, priority, queue, parameters, arguments, canvas,
                   labels, fingerprint, origin, run_at)
SELECT 'copy-' || number, 'copy-' || number, trace_id, work_type, status, priority, queue, parameters, arguments,
       canvas, labels, fingerprint, origin, run_at + number * interval '1 second'
  FROM tasks, generate_series(1, %s) AS number WHERE task_id = %s
"""


def publish_with_eta(client: RawAmqp, work_type: str, parameters: dict[str, object], at: datetime, *ids: str) -> None:
    """Publish as Celery's clients do for `apply_async(eta=...)`."""
    body = json.dumps([[], parameters, None])
    as_json = {"content_type": "application/json", "content_encoding": "utf-8"}
    with client.channel() as channel:
        for task_id in ids:
            headers = {"task": work_type, "id": task_id, "lang": "py", "root_id": task_id, "eta": at.isoformat()}
            message = amqp.Message(body, application_headers=headers, delivery_mode=PERSISTENT, **as_json)
            channel.basic_publish(message, "work", "work_queue", mandatory=True)


def test_what_is_for_later_outlives_a_restart_of_the_broker_and_of_every_agent(
    mortal_broker: BrokerNode,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    team = agents.start_team("first", "second")
    retried = api.dispatch("test.retry_once", {"path": str(diary.path), "after": LATER})
    scheduled = api.dispatch("test.append", diary.parameters("scheduled"), delay_seconds=LATER)
    api.dispatch("test.append", diary.parameters("expired"), delay_seconds=LATER, expires_in_seconds=LATER / 3)
    eta = datetime.now(UTC) + timedelta(seconds=LATER)
    publish_with_eta(amqp_client, "test.append", diary.parameters("eta"), eta, "with-eta")
    eventually("all to be for later", lambda: ledger.statuses() == {"scheduled": 3, "retrying": 1})
    due = {row["task_id"]: row["run_at"] for row in ledger.rows("SELECT task_id, run_at FROM tasks")}

    for agent in team:
        agent.kill()
    mortal_broker.kill()
    mortal_broker.restart()
    agents.start_team("third", "fourth")

    eventually("each to have its end", lambda: ledger.statuses() == {"completed": 3, "expired": 1})
    assert sorted(map(str, diary.notes())) == ["1", "2", "eta", "scheduled"]
    assert diary.notes(retried) == [1, 2]
    for task_id in (retried, scheduled, "with-eta"):
        assert ledger.executions(task_id)[-1]["started_at"] >= due[task_id], task_id


def test_a_due_task_is_rung_within_a_second(api: HttpClient, celery_worker: AgentNode, ledger: LedgerReader) -> None:
    began = ledger.now() + timedelta(seconds=3)
    moments = [began + timedelta(milliseconds=370 * number) for number in range(20)]
    due = {api.dispatch("echo", {"input": 1}, run_at=moment.isoformat()): moment for moment in moments}

    eventually("all to be done", lambda: ledger.statuses() == {"completed": len(due)})

    # One that was claimed before its confirm was written down has no `queued_at`.
    rings = ledger.rows("SELECT task_id, least(queued_at, claimed_at) AS rung_at FROM tasks")
    rung = {row["task_id"]: row["rung_at"] for row in rings}
    late = sorted((rung[task_id] - moment).total_seconds() for task_id, moment in due.items())
    assert late[0] >= 0
    assert late[-1] <= 1, late


def test_a_hundred_thousand_scheduled_tasks_cost_an_agent_no_memory(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    ledger: LedgerReader,
) -> None:
    agent = agents.start(pool="prefork")
    family = [psutil.Process(agent.container.pid), *agent.children()]

    def resident() -> int:
        return sum(process.memory_info().rss for process in family)

    for number in range(20):
        api.wait_for(api.dispatch("echo", {"input": number}), "completed")
    one = api.dispatch("echo", {"input": 1}, delay_seconds=3600)
    before = resident()

    LedgerWriter(ledger.url).run(COPY, MANY - 1, one)
    an_hour = datetime.now(UTC) + timedelta(hours=1)
    publish_with_eta(amqp_client, "echo", {"input": 1}, an_hour, *(f"eta-{number}" for number in range(SOME)))
    eventually("all to be scheduled", lambda: ledger.statuses().get("scheduled") == MANY + SOME)

    assert api.wait_for(api.dispatch("echo", {"input": "now"}), "completed")
    assert amqp_client.ready("work_queue") == 0
    eventually("all to be the ledger's", lambda: unacknowledged(rabbitmq, mortal_broker.url) == 0)
    assert resident() - before < 20_000_000


def test_an_idempotency_window_outlives_the_api_the_agents_and_the_broker(
    mortal_broker: BrokerNode, apis: Apis, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    api = apis.start(idempotency_ttl=WINDOW)
    team = agents.start_team("first", "second", idempotency_ttl=WINDOW)
    order = {"work_type": "test.append", "parameters": diary.parameters("once"), "request_id": "order-7"}
    task = api.wait_for(api.post("/dispatch", order).json()["task_id"], "completed")

    for agent in team:
        agent.kill()
    apis.kill()
    mortal_broker.kill()
    apis.resume()
    answers = [api.post("/dispatch", order)]
    mortal_broker.restart()
    agents.start_team("third", "fourth", idempotency_ttl=WINDOW)
    answers.append(api.post("/dispatch", order))

    for answer in answers:
        assert (answer.status_code, answer.headers["Idempotent-Replayed"]) == (200, "true")
        assert (answer.json()["task_id"], answer.json()["result"]) == (task["task_id"], task["result"])
    assert diary.notes() == ["once"]
    assert ledger.statuses() == {"completed": 1}
