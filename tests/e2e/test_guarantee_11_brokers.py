"""Guarantee 11: lists of brokers are followed, and quorum queues give the same, alone and on a cluster of three."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ, broker_version
from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.broker_cluster import BrokerCluster
from tests.e2e.diary import Diary
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.load import SteadyLoad, assert_each_was_done_once
from tests.e2e.nodes import BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually
from tests.services import Services

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e


@pytest.fixture
def second_broker(services: Services, tmp_path: Path) -> Iterator[PrivateRabbitMQ]:
    """Another broker, which knows nothing of the first."""
    assert services.guardian
    node = PrivateRabbitMQ(tmp_path / "second-broker")
    node.start()
    yield node
    node.kill()  # an orderly end takes seconds
    node.stop()


@pytest.fixture
def cluster(services: Services, tmp_path: Path) -> Iterator[BrokerCluster]:
    """Three nodes that are one broker."""
    assert services.guardian
    with BrokerCluster(tmp_path / "cluster") as nodes:
        yield nodes


def consumers(node: PrivateRabbitMQ, vhost: str = "/") -> int:
    """How many agents the node hands work to; none while there is no queue."""
    said = node.ctl("list_queues", "--no-table-headers", "-p", vhost, "name", "consumers")
    return sum(int(line.split()[1]) for line in said.splitlines() if line.startswith("work_queue"))


def type_of_the_queue(node: PrivateRabbitMQ, vhost: str = "/") -> str:
    """What `work_queue` is made as."""
    said = node.ctl("list_queues", "--no-table-headers", "-p", vhost, "name", "type")
    return next(line.split()[1] for line in said.splitlines() if line.startswith("work_queue"))


def has_strict_priorities(version: str) -> bool:
    """Whether quorum queues of that RabbitMQ order by priority."""
    major, minor = (int(number) for number in version.split(".")[:2])
    return (major, minor) >= (4, 3)


def test_a_list_of_brokers_is_followed_when_the_first_one_dies_under_load(
    mortal_broker: BrokerNode,
    second_broker: PrivateRabbitMQ,
    apis: Apis,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    both = f"{mortal_broker.url};{second_broker.url}"
    api = apis.start(broker_url=both)
    agents.start_team("first", "second", broker_url=both, lost_after=2)
    with SteadyLoad(api, "test.append", diary.parameters(seconds=0.2), ahead=20) as load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        mortal_broker.kill()
        eventually("both agents to be at the other broker", lambda: consumers(second_broker) == 2)
        since = len(load.accepted)
        eventually("the load to go on", lambda: len(load.accepted) >= since + 5)

    assert_each_was_done_once(load, ledger, diary)


def test_an_agent_and_the_api_meet_at_the_first_broker_of_a_list_when_it_is_back(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    second_broker: PrivateRabbitMQ,
    apis: Apis,
    agents: Agents,
    diary: Diary,
) -> None:
    both = f"{mortal_broker.url};{second_broker.url}"
    api = apis.start(broker_url=both)
    agents.start(broker_url=both, concurrency=2, lost_after=3600)
    mortal_broker.kill()
    eventually("the agent to be at the other broker", lambda: consumers(second_broker) == 1)
    mortal_broker.restart()

    # The API has rung nothing meanwhile, and connects to the first.
    api.wait_for(api.dispatch("test.append", diary.parameters("back")), "completed", within=60)

    mortal_broker.kill()
    eventually("the agent to be at the other broker", lambda: consumers(second_broker) == 1)
    running = api.dispatch("test.run", {"path": str(diary.path), "seconds": 30})
    eventually("it to run", lambda: "begun" in diary.notes())  # the API is there, too
    mortal_broker.restart()
    vhost = mortal_broker.url.rpartition("/")[2]
    eventually("the agent to be back", lambda: consumers(rabbitmq, vhost) == 1, within=60)
    api.wait_for(api.dispatch("test.append", diary.parameters("back again")), "completed")
    api.wait_for(running, "completed")
    assert diary.notes().count("begun") == 1


def test_work_a_retry_and_a_dead_letter_go_their_ways_over_quorum_queues(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    apis: Apis,
    agents: Agents,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    api = apis.start(queue_type="quorum")
    agents.start(queue_type="quorum")
    assert type_of_the_queue(rabbitmq, mortal_broker.url.rpartition("/")[2]) == "quorum"
    done = api.dispatch("test.append", diary.parameters("done"))
    retried = api.dispatch("test.append_at_second_attempt", {"path": str(diary.path)})
    failed = api.dispatch("fail", {"message": "no"})
    amqp_client.publish(b"no work")

    api.wait_for(done, "completed")
    api.wait_for(retried, "completed")
    api.wait_for(failed, "failed")
    eventually("both letters", lambda: len(api.get("/dead-letters")["items"]) == 2)
    assert api.post("/dead-letters/replay", {"filter": {"task_id": failed}}).json()["replayed"] == 1
    eventually("it to have failed again", lambda: len(ledger.executions(failed)) == 2)
    eventually("both letters", lambda: len(api.get("/dead-letters")["items"]) == 2)
    assert api.post("/dead-letters/discard", {"all": True}).json()["discarded"] == 2
    assert sorted(diary.task_ids()) == sorted([done, retried, retried])


def test_urgent_work_goes_first_over_quorum_queues_where_the_broker_has_priorities_for_them(
    celery_broker: BrokerNode, apis: Apis, agents: Agents, diary: Diary
) -> None:
    api = apis.start(queue_type="quorum")
    for priority in (1, 3, 5, 2, 4):
        api.wait_for(api.dispatch("test.append", diary.parameters(priority), priority=priority), "queued")

    agents.start(queue_type="quorum", concurrency=1)

    eventually("all five", lambda: len(diary.entries()) == 5)
    has_priorities = has_strict_priorities(broker_version(celery_broker.url))
    assert diary.notes() == ([5, 4, 3, 2, 1] if has_priorities else [1, 3, 5, 2, 4])


def test_no_dead_letter_is_lost_over_quorum_queues_when_the_broker_is_killed_amid_them(
    mortal_broker: BrokerNode, apis: Apis, agents: Agents, amqp_client: RawAmqp
) -> None:
    api = apis.start(queue_type="quorum")
    agents.start(queue_type="quorum", concurrency=2)
    garbage = {b"no work %d" % number for number in range(50)}
    failing = {api.dispatch("fail", {"message": "no"}) for _ in range(25)}
    amqp_client.publish(*garbage)
    failing |= {api.dispatch("fail", {"message": "no"}) for _ in range(25)}

    eventually("some letters", lambda: amqp_client.ready("dlx_queue") >= 5)
    mortal_broker.kill()
    mortal_broker.restart()

    def letters() -> tuple[set[bytes], set[str]]:
        shown = api.get("/dead-letters", limit=500)["items"]
        return {b["body"].encode() for b in shown if b["task_id"] is None}, {b["task_id"] for b in shown} - {None}

    eventually("a letter of each", lambda: letters() == (garbage, failing), within=60)


def test_quorum_queues_on_a_cluster_outlive_the_end_of_one_of_its_three_nodes_under_load(
    cluster: BrokerCluster, apis: Apis, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    quorum = {"broker_url": cluster.url, "queue_type": "quorum"}
    api = apis.start(**quorum)
    agents.start_team("first", "second", **quorum)
    with SteadyLoad(api, "test.append", diary.parameters(seconds=0.2), ahead=20) as load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        assert type_of_the_queue(cluster.nodes[1]) == "quorum"
        cluster.nodes[0].kill()
        eventually("both agents to be at another node", lambda: consumers(cluster.nodes[1]) == 2)
        since = len(load.accepted)
        eventually("the load to go on", lambda: len(load.accepted) >= since + 5)

    assert_each_was_done_once(load, ledger, diary)
