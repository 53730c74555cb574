"""Guarantee 9: a worker that hangs is seen, and recovers or ends; after a restart of the broker each one consumes."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path

import pytest

from chiffon.agent import watch
from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.chaos.relay import Relays
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.hanging import block
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.stack import REPOSITORY, StackUnderTest
from tests.e2e.waiting import eventually
from tests.proxy import through

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

A_MINUTE = timedelta(seconds=60)
"""From a hang to its end, by the guarantee."""

HEARTBEAT = 4  # seconds; the product's own is 20


@pytest.fixture
def quick_heartbeats(rabbitmq: PrivateRabbitMQ) -> Iterator[None]:
    """The broker asks its clients for more frequent proofs of life than they offer."""
    rabbitmq.ctl("eval", f"application:set_env(rabbit, heartbeat, {HEARTBEAT}).")
    yield
    rabbitmq.ctl("eval", "application:set_env(rabbit, heartbeat, 60).")


def health_of(stack: StackUnderTest, agent_id: str) -> subprocess.CompletedProcess[str]:
    """Ask as a supervisor does: `chiffon health agent NAME`."""
    return subprocess.run(
        [Path(sys.executable).with_name("chiffon"), "health", "agent", agent_id],
        env={**os.environ, **stack.settings()},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
    )


def test_a_worker_whose_event_loop_hangs_is_seen_and_ends_and_its_work_is_taken_over(
    stack: StackUnderTest, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    assert watch.EVERY + watch.HUNG_AFTER < 60, "the product's own times"
    hung = agents.start("hung", pool="prefork", workers="workers,tests.e2e.work,tests.e2e.hanging")
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)
    heir = agents.start("heir")

    hung.container.signal(signal.SIGUSR2)

    probe = health_of(stack, hung.agent_id)
    assert probe.returncode == 1
    assert "does not answer over the broker" in probe.stdout
    eventually("it to end", lambda: hung.container.exit_code == os.EX_TEMPFAIL, within=block.HUNG_AFTER * 2)
    [life] = ledger.rows("SELECT stopped_at FROM agents WHERE agent_id = %s", hung.agent_id)
    assert life["stopped_at"] is not None, "it has not said goodbye: others wait until its silence is noticed"
    api.wait_for(task_id, "completed")
    eventually("it to be seen", lambda: api.agent(hung.agent_id)["status"] == "offline")
    runs = [(run["agent_id"], run["outcome"]) for run in ledger.executions(task_id)]
    assert runs == [(hung.agent_id, "agent_lost"), (heir.agent_id, "completed")]
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2]


def test_a_connection_that_is_dead_and_not_closed_is_found_out_and_opened_anew(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    quick_heartbeats: None,
    relays: Relays,
    api: HttpClient,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    relay = relays.before("127.0.0.1", rabbitmq.port)
    agents.start(broker_url=through(relay.port, mortal_broker.url))
    task_id = api.dispatch("test.run", {"path": str(diary.path), "seconds": 3})
    eventually("the run to be under way", diary.entries)

    relay.half_open(600)
    later = api.dispatch("test.append", diary.parameters("later"))

    api.wait_for(later, "completed", within=30)
    eventually("nothing to be left", lambda: amqp_client.ready("work_queue") == 0)
    assert diary.notes() == ["begun", "ended", "later"]
    assert ledger.outcomes(task_id) == ["completed"]


def test_after_each_of_three_restarts_of_the_broker_every_worker_consumes_again(
    mortal_broker: BrokerNode, api: HttpClient, agents: Agents, diary: Diary
) -> None:
    team = {agent.agent_id for agent in agents.start_team("first", "second")}
    sent = []
    for _ in range(3):
        mortal_broker.kill()
        mortal_broker.restart()
        eventually("every worker to consume", lambda: api.queue()["consumers"] == len(team))
        together = [api.dispatch("test.append", diary.parameters(seconds=1)) for _ in team]
        assert {api.wait_for(task_id, "completed")["agent_id"] for task_id in together} == team
        sent += together
    assert diary.has_each_once(sent)


def test_a_connection_that_is_dead_and_not_closed_is_seen_and_mended_within_a_minute(
    stack: StackUnderTest,
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    relays: Relays,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    relay = relays.before("127.0.0.1", rabbitmq.port)
    agent = agents.start(broker_url=through(relay.port, mortal_broker.url))
    assert health_of(stack, agent.agent_id).returncode == 0  # what that answer went out on is dead soon, too

    died_at = ledger.now()
    relay.half_open(600)
    later = api.dispatch("test.append", diary.parameters("later"))
    probe = health_of(stack, agent.agent_id)

    assert probe.returncode == 1
    assert "does not answer over the broker" in probe.stdout
    api.wait_for(later, "completed", within=90)
    [run] = ledger.executions(later)
    assert run["started_at"] - died_at <= A_MINUTE
    eventually("it to answer again", lambda: health_of(stack, agent.agent_id).returncode == 0)
    assert agent.container.exit_code is None
    assert diary.notes() == ["later"]
