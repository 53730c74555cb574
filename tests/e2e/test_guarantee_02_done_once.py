"""Guarantee 2: one agent at a time, one settlement, whatever happens between the agents, the ledger and the broker."""

from __future__ import annotations

import contextlib
import os
from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager

import psutil
import pytest

from chiffon.devstack.guardian import lives
from chiffon.devstack.postgres import PrivatePostgres
from tests.chaos.relay import Relay, Relays
from tests.e2e.agents import Agents
from tests.e2e.begun import begin_a_run
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import AgentNode
from tests.e2e.stack import StackUnderTest
from tests.e2e.waiting import always, eventually
from tests.proxy import Proxy, through

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

TOLD_WITHIN = 8.0
"""Seconds within which a run that became somebody else's is stopped, once its agent can reach the ledger again."""


LOCK = """
SELECT incarnation, l.pid AS session
  FROM agents JOIN pg_locks l ON l.locktype = 'advisory' AND l.granted AND l.objid::bigint = incarnation
 WHERE l.database = (SELECT oid FROM pg_database WHERE datname = current_database())
"""
"""The lock that proves that an agent lives, and the session of the server that holds it."""


def assert_the_heir_alone_has_settled(
    api: HttpClient, diary: Diary, task_id: str, first: AgentNode, heir: AgentNode
) -> None:
    """Two executions are shown, one has settled; and the diary has both, as they were."""
    task = api.task(task_id)
    shown = [(run["agent_id"], run["outcome"]) for run in task["executions"]]
    assert shown == [(first.agent_id, "agent_lost"), (heir.agent_id, "completed")]
    begun = [entry for entry in diary.entries(task_id) if entry.note == "begun"]
    assert [entry.attempt for entry in begun] == [1, 2]
    assert task["result"] == {"pid": begun[1].pid}
    assert (begun[1].pid, "ended") in {(entry.pid, entry.note) for entry in diary.entries(task_id)}


def test_a_restart_of_postgres_under_a_running_agent_costs_the_run_nothing(
    postgres: PrivatePostgres, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agents.start_team("first", "second")
    task_id = begin_a_run(api, diary, seconds=8)

    postgres.restart()

    eventually("the run to be settled", lambda: ledger.statuses() == {"completed": 1})
    always("what was settled", lambda: diary.notes(task_id) == ["begun", "ended"], during=3)
    assert ledger.outcomes(task_id) == ["completed"]


def test_an_agent_that_is_stopped_in_its_tracks_is_overtaken_and_settles_nothing_when_it_goes_on(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    team = agents.start_team("first", "second")
    task_id = begin_a_run(api, diary, seconds=4)
    (run,) = ledger.executions(task_id)
    stopped, heir = sorted(team, key=lambda agent: agent.agent_id != run["agent_id"])

    stopped.container.pause()
    eventually("its run to be settled by another", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"])
    stopped.container.resume()

    eventually("it to be heard of again", lambda: api.agent(stopped.agent_id)["status"] == "online")
    always("the end", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"], during=3)
    assert_the_heir_alone_has_settled(api, diary, task_id, stopped, heir)
    heir.kill()
    assert api.wait_for(api.dispatch("echo", {"input": 1}), "completed")["agent_id"] == stopped.agent_id


def test_an_agent_cut_off_from_the_ledger_is_overtaken_and_one_of_the_two_settles(
    stack: StackUnderTest,
    postgres: PrivatePostgres,
    relays: Relays,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    relay = relays.before("127.0.0.1", postgres.port)
    cut_off = agents.start("cut-off", database_url=through(relay.port, stack.ledger_url))
    task_id = begin_a_run(api, diary, seconds=6)
    heir = agents.launch("heir")
    relay.fall_silent(True)

    eventually("its run to be settled by another", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"])
    relay.fall_silent(False)

    eventually("it to be heard of again", lambda: api.agent(cut_off.agent_id)["status"] == "online")
    always("the end", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"], during=3)
    assert_the_heir_alone_has_settled(api, diary, task_id, cut_off, heir)
    heir.kill()
    assert api.wait_for(api.dispatch("echo", {"input": 1}), "completed")["agent_id"] == cut_off.agent_id


def test_work_whose_broker_connection_drops_goes_on_and_is_not_run_beside_itself(
    stack: StackUnderTest, api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    with Proxy.before(stack.broker_url) as proxy:
        agents.start("dropped", broker_url=proxy.url(stack.broker_url))
        task_id = begin_a_run(api, diary, seconds=10)
        agents.start("idle")

        proxy.cut()

        eventually("the run to be settled", lambda: ledger.statuses() == {"completed": 1})
    assert ledger.outcomes(task_id) == ["completed"]
    assert diary.notes(task_id) == ["begun", "ended"]


@contextlib.contextmanager
def cut_off(agent: AgentNode, relay: Relay) -> Iterator[None]:
    """Its way to the ledger carries nothing."""
    relay.fall_silent(True)
    try:
        yield
    finally:
        relay.fall_silent(False)


@contextlib.contextmanager
def stopped(agent: AgentNode, relay: Relay) -> Iterator[None]:
    """It does nothing at all."""
    agent.container.pause()
    try:
        yield
    finally:
        agent.container.resume()


Interruption = Callable[[AgentNode, Relay], AbstractContextManager[None]]


@pytest.fixture
def relay(relays: Relays, postgres: PrivatePostgres) -> Relay:
    """Stands before Postgres."""
    return relays.before("127.0.0.1", postgres.port)


def begin_a_long_run(api: HttpClient, diary: Diary) -> tuple[str, psutil.Process]:
    """Dispatch a run whose first attempt takes half a minute; its task, and the process that it is in."""
    task_id = api.dispatch("test.run_long_at_first", {"path": str(diary.path), "seconds": 30})
    eventually("the run to be under way", lambda: diary.notes(task_id) == ["begun"])
    return task_id, psutil.Process(diary.entries(task_id)[0].pid)


@pytest.mark.parametrize("interrupted", [cut_off, stopped])
def test_a_run_that_has_become_somebody_elses_is_stopped_as_soon_as_its_agent_is_back(
    interrupted: Interruption,
    stack: StackUnderTest,
    relay: Relay,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    first = agents.start("first", pool="prefork", database_url=through(relay.port, stack.ledger_url))
    task_id, runner = begin_a_long_run(api, diary)
    heir = agents.start("heir")

    with interrupted(first, relay):
        eventually("an heir to do it", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"])
        assert lives(runner)

    eventually("the first run to be stopped", lambda: not lives(runner), within=TOLD_WITHIN)
    assert diary.notes(task_id) == ["begun", "begun", "ended"]
    assert ledger.outcomes(task_id) == ["agent_lost", "completed"]
    heir.kill()
    assert api.wait_for(api.dispatch("echo", {"input": 1}), "completed")["agent_id"] == first.agent_id


@pytest.mark.parametrize("interrupted", [cut_off, stopped])
def test_an_agent_with_threads_ends_over_a_run_that_has_become_somebody_elses(
    interrupted: Interruption,
    stack: StackUnderTest,
    relay: Relay,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    first = agents.start("first", pool="threads", database_url=through(relay.port, stack.ledger_url))
    task_id, _ = begin_a_long_run(api, diary)
    agents.start("heir")

    with interrupted(first, relay):
        eventually("an heir to do it", lambda: ledger.outcomes(task_id) == ["agent_lost", "completed"])
        assert first.container.exit_code is None

    eventually("it to end", lambda: first.container.exit_code is not None, within=TOLD_WITHIN)
    assert first.container.exit_code == os.EX_TEMPFAIL
    assert diary.notes(task_id) == ["begun", "begun", "ended"]
    assert ledger.outcomes(task_id) == ["agent_lost", "completed"]


def test_an_agent_that_stands_still_for_a_moment_keeps_its_run(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    holder = agents.start("holder", offline_after=6)
    task_id = begin_a_run(api, diary, seconds=8)
    agents.start("idle", offline_after=6)

    holder.container.pause()
    always("the run", lambda: ledger.outcomes(task_id) == [None], during=1.5)
    holder.container.resume()

    eventually("the run to be settled", lambda: ledger.statuses() == {"completed": 1})
    assert ledger.outcomes(task_id) == ["completed"]
    assert diary.notes(task_id) == ["begun", "ended"]


def test_an_agent_lives_by_its_direct_way_to_the_ledger_and_by_no_other(
    stack: StackUnderTest,
    postgres: PrivatePostgres,
    relays: Relays,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    pooled, direct = (relays.before("127.0.0.1", postgres.port) for _ in range(2))
    agent = agents.start(
        database_url=through(pooled.port, stack.ledger_url), database_direct_url=through(direct.port, stack.ledger_url)
    )
    task_id = begin_a_run(api, diary, seconds=8)
    (lock,) = ledger.rows(LOCK)

    pooled.refuse(True)  # as if the pooler were restarted, or gave its backends to others
    always("the lock", lambda: ledger.rows(LOCK) == [lock], during=4)
    assert "agent_rejoined" not in agent.logs()
    direct.cut()
    eventually("it to lock again", lambda: agent.log_lines(mentioning='"agent_rejoined"'))
    (again,) = ledger.rows(LOCK)
    assert (again["incarnation"], again["session"] != lock["session"]) == (lock["incarnation"], True)
    api.wait_for(task_id, "completed")
    assert ledger.outcomes(task_id) == ["completed"]
    assert diary.notes(task_id) == ["begun", "ended"]
