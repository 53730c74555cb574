"""Guarantee 8: what an end sets off happens exactly once, whoever settles, and whoever dies before it acknowledges."""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterator

import pytest
from celery import chain, chord, group
from celery.canvas import Signature

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.chaos.relay import Relays
from tests.e2e.agents import Agents
from tests.e2e.canvas_client import CanvasClient
from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.ledger_writer import LedgerWriter
from tests.e2e.nodes import AgentNode, BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.stack import StackUnderTest
from tests.e2e.waiting import always, eventually
from tests.proxy import through

pytest_plugins = ("tests.e2e.fixtures",)
pytestmark = pytest.mark.e2e

IN_CHAIN, IN_CHORD = MEMBERS = ("member-of-the-chain", "member-of-the-chord")
LINKED, IN_GROUP = "has-a-link", "member-of-the-group"
BODY = "body-of-the-chord"
MAX_CRASHES = 1


@pytest.fixture
def canvas(stack: StackUnderTest, diary: Diary) -> Iterator[CanvasClient]:
    """A client of Celery's canvas."""
    found = CanvasClient(stack.broker_url, stack.ledger_url, diary)
    yield found
    found.close()


def test_an_agent_that_dies_between_settling_and_acknowledging_takes_no_step_along_and_doubles_none(
    mortal_broker: BrokerNode,
    rabbitmq: PrivateRabbitMQ,
    relays: Relays,
    agents: Agents,
    canvas: CanvasClient,
    amqp_client: RawAmqp,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    relay = relays.before("127.0.0.1", rabbitmq.port)
    doomed = agents.start("doomed", concurrency=6, broker_url=through(relay.port, mortal_broker.url))
    chain(canvas.run(2).set(task_id=IN_CHAIN), canvas.append("next")).apply_async()
    chord([canvas.append("part"), canvas.run(2).set(task_id=IN_CHORD)])(canvas.append("body"))
    canvas.run(2).set(task_id=LINKED).apply_async(link=[canvas.append("link"), canvas.append("other link")])
    together = group([canvas.append("beside"), canvas.run(2).set(task_id=IN_GROUP)]).apply_async()
    eventually("all runs to be under way", lambda: Counter(diary.notes()) == {"begun": 4, "part": 1, "beside": 1})

    relay.fall_silent(True)  # acknowledgements reach nobody
    for task_id in (*MEMBERS, LINKED, IN_GROUP):
        eventually("it to be settled", lambda task_id=task_id: ledger.outcomes(task_id) == ["completed"])
    doomed.kill()
    relay.fall_silent(False)
    eventually("their messages to be back", lambda: amqp_client.ready("work_queue") >= 4)
    agents.start("heir")

    done = {"begun": 4, "ended": 4, "part": 1, "beside": 1, "next": 1, "body": 1, "link": 1, "other link": 1}
    eventually("the steps that follow", lambda: Counter(diary.notes()) == done)
    eventually("all to be settled", lambda: ledger.statuses().keys() == {"completed"})
    always("each step", lambda: Counter(diary.notes()) == done, during=2)
    assert [one.state for one in together.results] == ["SUCCESS"] * 2
    assert {run["execution"] for run in ledger.rows("SELECT execution FROM executions")} == {1}


def as_it_is(member: Signature) -> Signature:
    """A member that runs for long."""
    return member


def soon_expired(member: Signature) -> Signature:
    """A member that nobody wants any more before its time has come."""
    return member.set(countdown=60, expires=3)


def cancel(api: HttpClient, ledger: LedgerReader, agent: AgentNode) -> None:
    """Cancel both members by HTTP."""
    for task_id in MEMBERS:
        assert api.post(f"/tasks/{task_id}/cancel").status_code == 202


def expire(api: HttpClient, ledger: LedgerReader, agent: AgentNode) -> None:
    """Let time pass."""


def die_with_the_agent(api: HttpClient, ledger: LedgerReader, agent: AgentNode) -> None:
    """Kill the agent, as if as many had died of these tasks before as may."""
    LedgerWriter(ledger.url).run("UPDATE tasks SET agent_deaths = %s WHERE work_type = 'test.run'", 3 * MAX_CRASHES - 1)
    agent.kill()


@pytest.mark.parametrize(
    ("prepare", "finish", "end"),
    [
        (as_it_is, cancel, "cancelled"),
        (soon_expired, expire, "expired"),
        (as_it_is, die_with_the_agent, "dead_lettered"),
    ],
    ids=["cancelled by the API", "expired by a sweeper", "dead-lettered by who takes over"],
)
def test_a_member_that_ends_by_other_hands_calls_each_errback_once_and_fails_the_body_once(
    prepare: Callable[[Signature], Signature],
    finish: Callable[[HttpClient, LedgerReader, AgentNode], None],
    end: str,
    api: HttpClient,
    agents: Agents,
    canvas: CanvasClient,
    diary: Diary,
    ledger: LedgerReader,
) -> None:
    first = agents.start("first", concurrency=3, max_crashes=MAX_CRASHES)
    in_chain, in_chord = (prepare(canvas.run(60).set(task_id=task_id)) for task_id in MEMBERS)
    chain(in_chain, canvas.append("next")).apply_async(link_error=canvas.append("errback of the chain"))
    body = canvas.append("body").set(task_id=BODY, link_error=[canvas.append("errback of the body")])
    chord([canvas.append("part"), in_chord])(body)
    eventually(
        "both members to be there",
        lambda: len(ledger.rows("SELECT 1 FROM tasks WHERE status IN ('running', 'scheduled')")) == 2,
    )
    eventually("the other part to be done", lambda: "part" in diary.notes())
    agents.start("second", concurrency=3, max_crashes=MAX_CRASHES)

    finish(api, ledger, first)

    for task_id in MEMBERS:
        eventually("its end", lambda task_id=task_id: ledger.task(task_id)["status"] == end)  # type: ignore[index]
    once = {"part": 1, "errback of the chain": 1, "errback of the body": 1}

    def written() -> Counter[str]:
        return Counter(note for note in diary.notes() if note != "begun")

    eventually("both errbacks", lambda: written() == once)
    always("each", lambda: written() == once, during=3)
    assert canvas.app.AsyncResult(BODY).state == "FAILURE"
    assert {run["outcome"] for run in ledger.rows("SELECT outcome FROM executions")}.isdisjoint({None})


@pytest.mark.parametrize("how", ["over its limit", "with its process"])
def test_a_member_whose_end_its_agent_has_to_write_calls_each_errback_once_and_fails_the_body_once(
    how: str, agents: Agents, canvas: CanvasClient, diary: Diary, ledger: LedgerReader
) -> None:
    agents.start(pool="prefork", concurrency=3, max_crashes=MAX_CRASHES)
    ends_badly, end, note = {
        "over its limit": (canvas.run(60).set(time_limit=1), "timed_out", "begun"),
        "with its process": (canvas.die("SIGKILL"), "dead_lettered", "SIGKILL"),
    }[how]
    in_chain, in_chord = (ends_badly.clone().set(task_id=task_id) for task_id in MEMBERS)
    chain(in_chain, canvas.append("next")).apply_async(link_error=canvas.append("errback of the chain"))
    body = canvas.append("body").set(task_id=BODY, link_error=[canvas.append("errback of the body")])
    chord([canvas.append("part"), in_chord])(body)

    for task_id in MEMBERS:
        eventually("its end", lambda task_id=task_id: (ledger.task(task_id) or {}).get("status") == end)
    once = {note: 2, "part": 1, "errback of the chain": 1, "errback of the body": 1}
    eventually("both errbacks", lambda: Counter(diary.notes()) == once)
    always("each", lambda: Counter(diary.notes()) == once, during=3)
    assert canvas.app.AsyncResult(BODY).state == "FAILURE"
