"""Guarantee 3: whoever dies is replaced within seconds, at its own cost; whoever is told to end loses nothing."""

from __future__ import annotations

from datetime import timedelta
from functools import partial
from signal import SIGINT, SIGQUIT, SIGTERM

import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.e2e.agents import Agents
from tests.e2e.begun import begin_a_run
from tests.e2e.broker_reader import unacknowledged
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.nodes import AgentNode, BrokerNode
from tests.e2e.waiting import eventually

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

DEADLINE = timedelta(seconds=5)
"""From the death of an agent to the start of its work by another, by the guarantee; all times are the product's own."""

KILLED, RAISED = ("WorkerLostError", "the process that ran it died: "), ("ProcessKilled", "the work raised ")
REASONS = {"SIGKILL": KILLED, "segfault": KILLED, "os._exit": KILLED, "sys.exit": RAISED, "MemoryError": RAISED}
"""The ways in which work takes its process along: what its task's error is then, and how that begins."""


def assert_given_back_uncounted(ledger: LedgerReader, task_id: str) -> None:
    """It was interrupted, and nobody holds that against it."""
    row = ledger.task(task_id)
    assert row is not None
    assert (row["crashes"], row["agent_deaths"], row["retries"]) == (0, 0, 0)


def test_the_work_of_an_agent_that_is_killed_is_started_by_a_living_one_within_five_seconds(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    doomed = agents.start("doomed", heartbeat_seconds=60, offline_after=180)
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)
    heir = agents.start("heir", heartbeat_seconds=60, offline_after=180)

    died_at = ledger.now()
    doomed.kill()

    api.wait_for(task_id, "completed")
    first, second = ledger.executions(task_id)
    assert (first["outcome"], second["agent_id"]) == ("agent_lost", heir.agent_id)
    assert second["started_at"] - died_at <= DEADLINE
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2]


def test_work_whose_message_was_acknowledged_long_ago_is_started_as_soon_though_nothing_comes_again(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    api: HttpClient,
    agents: Agents,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    doomed = agents.start("doomed", ack_after=1, heartbeat_seconds=60, offline_after=180)
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)
    heir = agents.start("heir", heartbeat_seconds=60, offline_after=180)
    eventually("its message to be acknowledged", lambda: unacknowledged(rabbitmq, mortal_broker.url) == 0)
    assert ledger.outcomes(task_id) == [None]

    died_at = ledger.now()
    doomed.kill()

    api.wait_for(task_id, "completed")
    first, second = ledger.executions(task_id)
    assert (first["outcome"], second["agent_id"]) == ("agent_lost", heir.agent_id)
    assert second["started_at"] - died_at <= DEADLINE
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2]


def test_work_that_takes_its_process_along_is_dead_lettered_and_costs_its_neighbours_and_its_agent_nothing(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    agent = agents.start(pool="prefork")
    deadly = {api.dispatch("test.die", {"path": str(diary.path), "how": how}, priority=5): how for how in REASONS}
    harmless = api.dispatch_many([("test.append", diary.parameters("harmless"))] * 5)

    for task_id, how in deadly.items():
        task = api.wait_for(task_id, "dead_lettered")
        assert diary.notes(task_id) == [how] * 3
        assert [run["outcome"] for run in task["executions"]] == ["crashed"] * 3
        error, begins = REASONS[how]
        assert task["error"]["type"] == error
        assert task["error"]["message"].startswith(begins)
    for task_id in harmless:
        api.wait_for(task_id, "completed")
        assert diary.notes(task_id) == ["harmless"]
        assert_given_back_uncounted(ledger, task_id)
    assert agent.container.status == "running"
    eventually("their letters", lambda: {one["task_id"] for one in api.get("/dead-letters")["items"]} == set(deadly))


def test_work_that_takes_its_agent_along_is_dead_lettered_with_that_reason_and_no_other_agent_dies_of_it(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    """For it may be to blame for three times as many deaths of agents as of processes, once it is known to begin."""
    deadly = api.dispatch("test.kill_agent", {"path": str(diary.path)})

    def died_or_was_spared(agent: AgentNode) -> bool:
        return agent.container.exit_code is not None or api.task(deadly)["status"] == "dead_lettered"

    lives: list[AgentNode] = []
    while api.task(deadly)["status"] != "dead_lettered" and len(lives) < 8:
        lives.append(agents.launch(f"life{len(lives)}", pool="prefork", max_crashes=1, takeover_grace=1))
        eventually("it to die, or not", partial(died_or_was_spared, lives[-1]))
    *dead, survivor = lives

    task = api.wait_for(deadly, "dead_lettered")
    row = ledger.task(deadly)
    assert row is not None
    assert (row["agent_deaths"], row["crashes"]) == (3, 0)
    assert len(dead) == len(diary.entries(deadly)), "it was run by no other"
    assert [run["outcome"] for run in task["executions"]] == ["agent_lost"] * len(dead)
    assert task["error"]["type"] == "AgentLost"
    assert task["error"]["message"] == f"the agent {dead[-1].agent_id} died while it held the task"
    (letter,) = eventually("the letter", lambda: api.get("/dead-letters")["items"])
    assert (letter["task_id"], letter["reason"]) == (deadly, task["error"]["message"])
    harmless = api.wait_for(api.dispatch("test.append", diary.parameters("harmless")), "completed")
    assert (harmless["agent_id"], harmless["attempts"]) == (survivor.agent_id, 1)
    assert survivor.container.exit_code is None


def test_an_agent_that_is_told_to_end_finishes_what_runs_and_takes_nothing_new(
    api: HttpClient, agents: Agents, diary: Diary, ledger: LedgerReader
) -> None:
    leaving = agents.start("leaving")
    task_id = begin_a_run(api, diary, seconds=4)

    leaving.container.signal(SIGTERM)
    eventually("it to say so", lambda: api.agent(leaving.agent_id)["status"] == "draining")
    later = api.dispatch("test.append", diary.parameters("later"))
    eventually("it to be gone", lambda: leaving.container.exit_code is not None)

    assert leaving.container.exit_code == 0
    assert api.agent(leaving.agent_id)["status"] == "offline"
    assert ledger.outcomes(task_id) == ["completed"]
    assert diary.notes() == ["begun", "ended"]
    agents.start("heir")
    api.wait_for(later, "completed")
    assert diary.notes() == ["begun", "ended", "later"]


@pytest.fixture
def pair(request: pytest.FixtureRequest, agents: Agents) -> tuple[AgentNode, AgentNode]:
    """Two agents, which drain for as long as the parameter says."""
    first, second = agents.start_team("first", "second", drain_seconds=request.param)
    return first, second


def begin_a_run_that_is_slow_at_first(api: HttpClient, diary: Diary, ledger: LedgerReader) -> tuple[str, str]:
    """Dispatch it; return its task, and the agent that has begun it."""
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)
    (run,) = ledger.executions(task_id)
    return task_id, run["agent_id"]


@pytest.mark.parametrize("pair", [1], indirect=True)
def test_what_does_not_end_within_the_limit_of_a_drain_is_given_back_and_done_by_another(
    pair: tuple[AgentNode, AgentNode], api: HttpClient, diary: Diary, ledger: LedgerReader
) -> None:
    task_id, holder = begin_a_run_that_is_slow_at_first(api, diary, ledger)
    leaving, heir = sorted(pair, key=lambda agent: agent.agent_id != holder)

    leaving.container.signal(SIGTERM)

    task = api.wait_for(task_id, "completed", within=15)
    assert [(run["agent_id"], run["outcome"]) for run in task["executions"]] == [
        (leaving.agent_id, "given_back"),
        (heir.agent_id, "completed"),
    ]
    eventually("it to be gone", lambda: leaving.container.exit_code == 0)
    assert len(diary.entries(task_id)) == 2
    assert_given_back_uncounted(ledger, task_id)


@pytest.mark.parametrize("pair", [60], indirect=True)
@pytest.mark.parametrize("signals", [(SIGTERM, SIGTERM), (SIGINT, SIGINT), (SIGTERM, SIGQUIT)])
def test_an_agent_that_is_told_twice_to_end_gives_back_at_once(
    signals: tuple[int, int], pair: tuple[AgentNode, AgentNode], api: HttpClient, diary: Diary, ledger: LedgerReader
) -> None:
    task_id, holder = begin_a_run_that_is_slow_at_first(api, diary, ledger)
    leaving, heir = sorted(pair, key=lambda agent: agent.agent_id != holder)

    leaving.container.signal(signals[0])
    eventually("it to drain", lambda: api.agent(leaving.agent_id)["status"] == "draining")
    assert ledger.outcomes(task_id) == [None]
    told_at = ledger.now()
    leaving.container.signal(signals[1])

    api.wait_for(task_id, "completed")
    first, second = ledger.executions(task_id)
    assert (first["outcome"], second["agent_id"]) == ("given_back", heir.agent_id)
    assert second["started_at"] - told_at <= DEADLINE
    eventually("it to be gone", lambda: leaving.container.exit_code == 0)
    assert_given_back_uncounted(ledger, task_id)


@pytest.mark.parametrize("pool", ["prefork", "threads"])
def test_an_agent_that_is_told_to_quit_gives_back_at_once_and_ends_nothing(
    pool: str, agents: Agents, api: HttpClient, diary: Diary, ledger: LedgerReader
) -> None:
    pair = agents.start_team("first", "second", pool=pool, drain_seconds=60)
    task_id, holder = begin_a_run_that_is_slow_at_first(api, diary, ledger)
    leaving, heir = sorted(pair, key=lambda agent: agent.agent_id != holder)

    told_at = ledger.now()
    leaving.container.signal(SIGQUIT)

    api.wait_for(task_id, "completed")
    first, second = ledger.executions(task_id)
    assert (first["outcome"], second["agent_id"]) == ("given_back", heir.agent_id)
    assert second["started_at"] - told_at <= DEADLINE
    eventually("it to be gone", lambda: leaving.container.exit_code is not None)
    assert_given_back_uncounted(ledger, task_id)


def test_an_agent_whose_broker_neither_answers_nor_goes_ends_at_the_third_signal(
    mortal_broker: BrokerNode, rabbitmq: PrivateRabbitMQ, agents: Agents, api: HttpClient, diary: Diary
) -> None:
    agent = agents.start(drain_seconds=60)
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the run to be under way", diary.entries)
    rabbitmq.pause()
    try:
        agent.container.signal(SIGTERM)
        eventually("it to drain", lambda: api.agent(agent.agent_id)["status"] == "draining")
        agent.container.signal(SIGTERM)
        eventually("it to give back", lambda: api.task(task_id)["status"] == "pending")
        assert agent.container.exit_code is None
        agent.container.signal(SIGTERM)
        eventually("it to be gone", lambda: agent.container.exit_code is not None)
    finally:
        rabbitmq.resume()
    agents.start("heir")
    api.wait_for(task_id, "completed")
