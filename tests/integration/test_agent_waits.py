"""An agent that cannot reach its broker or its ledger waits, says why, and works once it can.

One that finds another schema than its own does not wait: it must not write there.
"""

from __future__ import annotations

import os
import signal
import uuid
from collections.abc import Iterator
from urllib.parse import urlsplit

import psycopg2
import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ, call_management
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.nodes import AgentNode, BrokerNode, LedgerNode
from tests.e2e.stack import StackUnderTest
from tests.e2e.waiting import eventually
from tests.proxy import Proxy
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


@pytest.fixture
def broker(celery_broker: BrokerNode) -> Iterator[Proxy]:
    """The broker, behind what can take it away."""
    with Proxy.before(celery_broker.url) as proxy:
        yield proxy


def reasons(agent: AgentNode, event: str) -> list[str]:
    """Why the agent says that it waits."""
    return [line["reason"] for line in agent.log_lines(mentioning=event)]


def has_no_traceback(agent: AgentNode) -> bool:
    return "Traceback" not in agent.logs() and "CRITICAL" not in agent.logs()


def test_an_agent_waits_for_a_broker_that_is_away(
    broker: Proxy, celery_broker: BrokerNode, agents: Agents, desk: Desk, diary: Diary
) -> None:
    broker.refuse = True
    agent = agents.launch(broker_url=broker.url(celery_broker.url), **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path)})
    said = eventually("the agent to say so", lambda: reasons(agent, "agent_waits_for_broker"))
    assert "RabbitMQ does not answer" in said[0]
    assert str(broker.port) in said[0], "it names the broker that it waits for"

    broker.refuse = False

    desk.wait_for(task_id, "completed")
    assert has_no_traceback(agent)


def test_an_agent_waits_for_a_ledger_that_is_away(
    celery_backend: LedgerNode, agents: Agents, desk: Desk, diary: Diary
) -> None:
    with Proxy.before(celery_backend.url) as ledger:
        ledger.refuse = True
        agent = agents.launch(database_url=ledger.url(celery_backend.url), **DEEDS)
        task_id = desk.place("trap.sign", {"path": str(diary.path)})
        said = eventually("the agent to say so", lambda: reasons(agent, "agent_waits_for_ledger"))
        assert "Postgres does not answer" in said[0]

        ledger.refuse = False

        desk.wait_for(task_id, "completed")
        assert has_no_traceback(agent)


@pytest.mark.parametrize("there", ["DROP SCHEMA public CASCADE", "DELETE FROM alembic_version"])
def test_an_agent_does_not_start_under_a_schema_that_is_behind(
    stack: StackUnderTest, celery_backend: LedgerNode, there: str
) -> None:
    with psycopg2.connect(celery_backend.url) as session, session.cursor() as cursor:
        cursor.execute(there)
    session.close()
    agent = stack.program("agent", "celery", "-A", "chiffon", "worker")
    agent.launch()
    eventually("it to end", lambda: agent.exit_code is not None)
    assert agent.exit_code == 1
    (line,) = agent.log.read_text().splitlines()
    assert line.startswith("chiffon: the ledger")
    assert line.endswith("run `chiffon db upgrade`")


def test_an_agent_whose_password_the_broker_refuses_settles_and_waits(
    rabbitmq: PrivateRabbitMQ,
    mortal_broker: BrokerNode,
    broker: Proxy,
    agents: Agents,
    desk: Desk,
    diary: Diary,
) -> None:
    user, vhost = uuid.uuid4().hex, urlsplit(mortal_broker.url).path[1:]
    rabbitmq.ctl("add_user", user, "right")
    rabbitmq.ctl("set_permissions", "-p", vhost, user, ".*", ".*", ".*")
    agent = agents.launch(broker_url=f"amqp://{user}:right@127.0.0.1:{broker.port}/{vhost}", **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 6})
    eventually("the work to be under way", diary.entries)

    rabbitmq.ctl("change_password", user, "another")
    broker.cut()

    said = eventually("the agent to say so", lambda: reasons(agent, "agent_waits_for_broker"))
    assert "check user and password in CHIFFON_BROKER_URL" in " ".join(said)
    assert "right" not in " ".join(said), "no password in a log"
    desk.wait_for(task_id, "completed")
    assert desk.outcomes(task_id) == ["completed"]

    rabbitmq.ctl("change_password", user, "right")
    after = desk.place("trap.sign", {"path": str(diary.path)})
    desk.wait_for(after, "completed")
    assert has_no_traceback(agent)
    rabbitmq.ctl("delete_user", user)


def test_an_agent_waits_for_a_virtual_host_that_is_not_there(
    rabbitmq: PrivateRabbitMQ, mortal_broker: BrokerNode, agents: Agents, desk: Desk, diary: Diary
) -> None:
    vhost = uuid.uuid4().hex
    agent = agents.launch(broker_url=rabbitmq.url_of(vhost), **DEEDS)
    said = eventually("the agent to say so", lambda: reasons(agent, "agent_waits_for_broker"))
    assert "RabbitMQ refuses the virtual host" in said[0]

    call_management(rabbitmq.management_url, "PUT", f"/api/vhosts/{vhost}")

    task_id = desk.place("trap.sign", {"path": str(diary.path)})
    desk.wait_for(task_id, "completed")
    assert has_no_traceback(agent)
    rabbitmq.drop_vhost(rabbitmq.url_of(vhost))


def test_an_agent_takes_the_next_broker_when_the_first_refuses_it(
    celery_broker: BrokerNode, agents: Agents, desk: Desk, diary: Diary
) -> None:
    parts = urlsplit(celery_broker.url)
    refusing = parts._replace(netloc=f"nobody:wrong@{parts.hostname}:{parts.port}").geturl()
    agents.launch(broker_url=f"{refusing};{celery_broker.url}", **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path)})
    desk.wait_for(task_id, "completed")


def test_an_agent_that_waits_for_its_broker_settles_what_runs_and_ends_when_it_is_told_to(
    broker: Proxy, celery_broker: BrokerNode, agents: Agents, desk: Desk, diary: Diary
) -> None:
    agent = agents.launch(broker_url=broker.url(celery_broker.url), **DEEDS)
    task_id = desk.place("trap.sign", {"path": str(diary.path), "seconds": 4})
    eventually("the work to be under way", diary.entries)
    broker.refuse = True
    broker.cut()
    eventually("the agent to wait", lambda: reasons(agent, "agent_waits_for_broker"))

    os.kill(agent.container.pid, signal.SIGTERM)

    eventually("the agent to end", lambda: agent.container.status == "exited")
    assert desk.status(task_id) == "completed"
    assert desk.outcomes(task_id) == ["completed"]
    assert [entry.note for entry in diary.entries(task_id)] == ["began", "done"]
    assert has_no_traceback(agent)
    assert not desk.reader.living(agent.agent_id, agent.container.pid), "it has said goodbye"


def test_an_agent_that_has_never_met_its_broker_ends_without_a_word_when_it_is_told_to(
    broker: Proxy, celery_broker: BrokerNode, agents: Agents
) -> None:
    broker.refuse = True
    agent = agents.launch(pool="prefork", broker_url=broker.url(celery_broker.url))
    eventually("the agent to wait for a while", lambda: len(reasons(agent, "agent_waits_for_broker")) > 2)

    os.kill(agent.container.pid, signal.SIGTERM)

    eventually("the agent to end", lambda: agent.container.status == "exited")
    assert has_no_traceback(agent)
