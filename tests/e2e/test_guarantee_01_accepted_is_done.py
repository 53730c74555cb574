"""Guarantee 1: what was answered 202 is done, once, whatever becomes of the broker under a steady load.

After the load nobody calls anything any more: the ends are read from the ledger by SQL.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator

import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.load import SteadyLoad, assert_each_was_done_once
from tests.e2e.nodes import BrokerNode
from tests.e2e.waiting import always, eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

LOST_AFTER = 2  # seconds; the product's own is 10

ALARMS = {
    "memory": (("set_vm_memory_high_watermark", "0.00001"), ("set_vm_memory_high_watermark", "0.6")),
    "disk": (("set_disk_free_limit", "9000GB"), ("set_disk_free_limit", "50MB")),
}
"""How the broker comes to believe that it has no more of it, and that it has."""


@pytest.fixture
def load(api: HttpClient, agents: Agents, diary: Diary) -> SteadyLoad:
    """A load with a backlog that two agents work off in some seconds."""
    agents.start_team("first", "second", concurrency=2, lost_after=LOST_AFTER)
    return SteadyLoad(api, "test.append", diary.parameters(seconds=0.2), ahead=40)


@contextlib.contextmanager
def an_alarm(rabbitmq: PrivateRabbitMQ, kind: str) -> Iterator[None]:
    """Raise an alarm for as long as the block goes on."""
    raised, cleared = ALARMS[kind]
    rabbitmq.ctl(*raised)
    try:
        yield
    finally:
        rabbitmq.ctl(*cleared)


def test_what_waits_and_what_runs_is_done_once_though_the_broker_is_wiped_empty_under_load(
    perishable_broker: BrokerNode, rabbitmq: PrivateRabbitMQ, load: SteadyLoad, ledger: LedgerReader, diary: Diary
) -> None:
    with load:
        eventually("a backlog", lambda: ledger.statuses().get("queued", 0) >= 15 and len(diary.entries()) >= 5)
        rabbitmq.wipe()
        rabbitmq.start()
        since = len(load.accepted)
        eventually("the load to go on", lambda: len(load.accepted) >= since + 5)

    assert_each_was_done_once(load, ledger, diary)
    lost = ledger.rows("SELECT 1 FROM task_history WHERE detail = 'its message was lost'")
    assert lost, "nothing had to be rung again: the broker was not wiped under load"


@pytest.mark.parametrize("signal", ["SIGKILL", "SIGTERM"])
def test_a_broker_that_is_killed_or_restarted_under_load_neither_loses_nor_doubles(
    signal: str, mortal_broker: BrokerNode, load: SteadyLoad, ledger: LedgerReader, diary: Diary
) -> None:
    with load:
        eventually("a backlog", lambda: ledger.statuses().get("queued", 0) >= 15 and len(diary.entries()) >= 5)
        mortal_broker.kill(signal)
        since = len(load.accepted)
        eventually("more to be accepted meanwhile", lambda: len(load.accepted) >= since + 5)
        mortal_broker.restart()
        done = len(diary.entries())
        eventually("the work to go on", lambda: len(diary.entries()) >= done + 5)

    assert_each_was_done_once(load, ledger, diary)


def test_a_wipe_at_rest_is_found_out_without_any_further_dispatch(
    perishable_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    ledger: LedgerReader,
    diary: Diary,
) -> None:
    agents.start("busy", concurrency=1, lost_after=LOST_AFTER)
    accepted = api.dispatch_many([("test.append", diary.parameters(seconds=3))] * 4)
    eventually("one to run, and the rest to wait", lambda: ledger.statuses() == {"running": 1, "queued": 3})

    rabbitmq.wipe()
    rabbitmq.start()

    eventually("everything to be done", lambda: ledger.statuses() == {"completed": 4}, within=60)
    assert diary.has_each_once(accepted)


def test_nothing_is_taken_for_lost_that_only_waits_for_its_turn(
    api: HttpClient, agents: Agents, ledger: LedgerReader, diary: Diary
) -> None:
    agents.start("busy", concurrency=1, lost_after=LOST_AFTER)
    slow = ("test.append", diary.parameters(seconds=1))

    accepted = api.dispatch_many([slow] * 4 * LOST_AFTER)

    eventually("everything to be done", lambda: ledger.statuses() == {"completed": len(accepted)}, within=60)
    assert ledger.rows("SELECT 1 FROM task_history WHERE detail = 'its message was lost'") == []
    assert ledger.rows("SELECT DISTINCT give_backs FROM tasks") == [{"give_backs": 0}]


def test_a_broker_that_hangs_under_load_delays_and_neither_loses_nor_doubles(
    mortal_broker: BrokerNode, rabbitmq: PrivateRabbitMQ, load: SteadyLoad, ledger: LedgerReader, diary: Diary
) -> None:
    with load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        rabbitmq.pause()
        since = len(load.accepted)
        # In this order: more may be accepted between the two looks.
        always("the accepted", lambda: len(load.accepted) <= ledger.count("tasks"), during=10)
        eventually("more to be accepted meanwhile", lambda: len(load.accepted) >= since + 20)
        rabbitmq.resume()

    assert_each_was_done_once(load, ledger, diary)


@pytest.mark.parametrize("kind", ALARMS)
def test_work_taken_in_under_an_alarm_of_the_broker_waits_and_is_done_once(
    kind: str,
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    load: SteadyLoad,
    ledger: LedgerReader,
    diary: Diary,
) -> None:
    with load:
        eventually("work to be under way", lambda: len(diary.entries()) >= 5)
        with an_alarm(rabbitmq, kind):
            eventually("doorbells to be held up", lambda: ledger.statuses().get("pending", 0) >= 15)

    assert_each_was_done_once(load, ledger, diary)
