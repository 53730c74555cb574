"""The end-to-end scenarios: real processes, driven from outside by HTTP, by AMQP and by SQL.

All of them are in this one file, by the names that `tests.e2e.census` requires; what they drive is in `tests/e2e/`.
Times are settings: seconds here (`tests.e2e.stack.QUICK`), minutes in production.
"""

from __future__ import annotations

import json
import re
import subprocess
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from pytest_celery import CeleryTestSetup

from tests.e2e.agents import Agents
from tests.e2e.api_process import Apis
from tests.e2e.diary import Diary
from tests.e2e.flower_process import Flower
from tests.e2e.http_client import HttpClient
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.messages import Bad, envelope, ill_formed, malformed
from tests.e2e.nodes import AgentNode, BrokerNode
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.readme_commands import Reader, parse
from tests.e2e.stack import REPOSITORY, StackUnderTest
from tests.e2e.waiting import eventually
from tests.services import Services

pytest_plugins = ("tests.e2e.fixtures", "tests.e2e.census")
pytestmark = pytest.mark.e2e

TRACE_ID = "4bf92f3577b34da6a3ce929d0e0e4736"


# Round trip


def test_orchestrator_to_agent_round_trip(api: HttpClient, celery_worker: AgentNode) -> None:
    task_id = api.dispatch("echo", {"input": "echo test"}, trace_id=TRACE_ID, request_id="order-7")

    task = api.wait_for(task_id, "completed")

    assert (task["trace_id"], task["request_id"]) == (TRACE_ID, "order-7")
    assert task["result"] == {"output": "echo test"}
    lines = eventually("the agent's log to name the task", lambda: celery_worker.log_lines(mentioning=task_id))
    for line in lines:
        assert (line["trace_id"], line["request_id"]) == (TRACE_ID, "order-7"), line


def test_work_round_trip_with_parameters(api: HttpClient, celery_worker: AgentNode) -> None:
    inputs = [
        "echo test",
        "Ünïcödé, 日本語, العربية, 🧵, a\ttab and a\nline",
        {"nested": [{"deeper": [[[{"deepest": [1, -2.5, 1.5e9, True, False, None, ""]}]]]}], "": {}},
        "x" * 200_000,
        10**30,
        None,
    ]
    sent = {api.dispatch("echo", {"input": value}): value for value in inputs}

    for task_id, value in sent.items():
        assert api.wait_for(task_id, "completed")["result"] == {"output": value}


def test_work_round_trip_with_priority(api: HttpClient, celery_worker: AgentNode, diary: Diary) -> None:
    backlog = [api.dispatch("test.append", diary.parameters("low", seconds=2), priority=1)]
    eventually("the first of the backlog to run", diary.entries)
    backlog += [api.dispatch("test.append", diary.parameters("low"), priority=1) for _ in range(5)]
    for task_id in backlog[1:]:
        api.wait_for(task_id, "queued")

    urgent = api.dispatch("test.append", diary.parameters("urgent"), priority=5)

    for task_id in [*backlog, urgent]:
        api.wait_for(task_id, "completed")
    assert diary.notes() == ["low", "urgent", "low", "low", "low", "low", "low"]


def test_multiple_agents_process_work(api: HttpClient, agents: Agents, diary: Diary) -> None:
    team = [agents.launch("first"), agents.launch("second")]
    assert all(agent.ready() for agent in team)

    sent = {api.dispatch("test.append", diary.parameters(n, seconds=1), request_id=f"n-{n}"): n for n in range(4)}

    done = [api.wait_for(task_id, "completed") for task_id in sent]
    assert {task["task_id"]: task["result"]["note"] for task in done} == sent
    assert [task["request_id"] for task in done] == [f"n-{n}" for n in range(4)]
    assert sorted(task["agent_id"] for task in done) == [agent.agent_id for agent in team for _ in range(2)]
    assert diary.has_each_once(sent)


def test_correlation_ids_propagate(
    api: HttpClient, celery_worker: AgentNode, amqp_client: RawAmqp, ledger: LedgerReader, diary: Diary
) -> None:
    ids = (TRACE_ID, "order-7")
    with amqp_client.tapping() as heard:
        task_id = api.dispatch(
            "test.append_at_second_attempt", {"path": str(diary.path)}, trace_id=TRACE_ID, request_id="order-7"
        )
        task = api.wait_for(task_id, "completed")

    assert (task["trace_id"], task["request_id"]) == ids
    assert api.get(f"/status/{task_id}") == task
    assert [found["task_id"] for found in api.get("/tasks", trace_id=TRACE_ID, request_id="order-7")["items"]] == [
        task_id
    ]
    assert (task["result"]["trace_id"], task["result"]["request_id"]) == ids  # as the second attempt was told
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2]

    history = ledger.rows(
        "SELECT task_history.status FROM task_history JOIN tasks USING (task_id) WHERE trace_id = %s ORDER BY number",
        TRACE_ID,
    )
    steps = [row["status"] for row in history]
    assert [step for step in steps if step != "queued"] == [
        "pending",
        "running",
        "retrying",
        "pending",
        "running",
        "completed",
    ]

    assert len(heard) >= 2
    for delivery in heard:
        assert (delivery.headers["trace_id"], delivery.headers["request_id"]) == ids
        assert delivery.headers["id"] == task_id

    def lines_of_both_executions() -> list[dict[str, Any]] | None:
        found = celery_worker.log_lines(mentioning=task_id)
        return found if {line.get("execution") for line in found} >= {1, 2} else None

    lines = eventually("the agent's log to name both executions", lines_of_both_executions)
    assert lines is not None
    for line in lines:
        assert (line["trace_id"], line["request_id"]) == ids, line


# Errors


def test_malformed_message_nacked_to_dlx(celery_worker: AgentNode, amqp_client: RawAmqp, ledger: LedgerReader) -> None:
    assert_dead_lettered(malformed(), celery_worker, amqp_client, ledger)


def test_invalid_envelope_nacked_to_dlx(celery_worker: AgentNode, amqp_client: RawAmqp, ledger: LedgerReader) -> None:
    assert_dead_lettered(ill_formed(), celery_worker, amqp_client, ledger)


def assert_dead_lettered(bad: list[Bad], agent: AgentNode, client: RawAmqp, ledger: LedgerReader) -> None:
    """Publish what is no work: each is in `dlx_queue`, rejected once, none is run, and the agent works on."""
    for message in bad:
        message.publish(client)
    client.publish_json(envelope("echo", {"input": "still here"}, task_id="after-them"))

    eventually("the agent to work on", lambda: (ledger.task("after-them") or {}).get("status") == "completed")
    letters = eventually("every letter", lambda: found if len(found := client.look("dlx_queue")) >= len(bad) else None)
    assert sorted(letter.body for letter in letters) == sorted(message.body for message in bad)
    for letter in letters:
        deaths = [(death["reason"], death["queue"], death["count"]) for death in letter.deaths]
        assert deaths == [("rejected", "work_queue", 1)], letter
    assert client.ready("work_queue") == 0
    assert [row["task_id"] for row in ledger.rows("SELECT task_id FROM executions")] == ["after-them"]
    assert agent.container.status == "running"


def test_agent_crash_leaves_message_in_queue(
    api: HttpClient, agents: Agents, amqp_client: RawAmqp, ledger: LedgerReader, diary: Diary
) -> None:
    doomed = agents.start("doomed")
    task_id = api.dispatch("test.append_slow_at_first", {"path": str(diary.path)})
    eventually("the work to be under way", diary.entries)

    doomed.kill()

    eventually("the message to be back", lambda: amqp_client.ready("work_queue") == 1)
    eventually("nothing of the agent to be left", lambda: not doomed.children())
    assert api.task(task_id)["status"] == "running"  # nobody has looked after it yet

    heir = agents.launch("heir")
    task = api.wait_for(task_id, "completed", within=5)

    first, second = ledger.executions(task_id)
    assert (first["agent_id"], second["agent_id"]) == (doomed.agent_id, heir.agent_id)
    assert (first["outcome"], second["outcome"]) == ("agent_lost", "completed")
    assert [row["task_id"] for row in ledger.rows("SELECT task_id FROM results")] == [task_id]
    assert [entry.attempt for entry in diary.entries(task_id)] == [1, 2]
    assert task["result"]["pid"] == diary.entries(task_id)[1].pid


def test_agent_timeout_handled(api: HttpClient, agents: Agents) -> None:
    agent = agents.start(pool="prefork")  # a thread cannot be killed
    (runner,) = agent.children()
    assert api.wait_for(api.dispatch("echo", {"input": "warm"}), "completed")

    task_id = api.dispatch("slow_echo", {"input": "late", "seconds": 5}, timeout_seconds=1)

    task = api.wait_for(task_id, "timed_out", within=3)
    assert task["result"] is None
    eventually("the process that ran it to be gone", lambda: runner not in agent.children())
    after = api.dispatch("echo", {"input": "still here"})
    assert api.wait_for(after, "completed")["agent_id"] == agent.agent_id


def test_duplicate_request_id_returns_cached_result(
    api: HttpClient, celery_worker: AgentNode, ledger: LedgerReader, diary: Diary
) -> None:
    order = {"work_type": "test.append", "parameters": diary.parameters("once", seconds=1), "request_id": "order-7"}
    task_id = api.post("/dispatch", order).json()["task_id"]
    in_flight = api.post("/dispatch", order)
    first = api.wait_for(task_id, "completed")

    again = api.post("/dispatch", order)
    other = api.post("/dispatch", order | {"parameters": diary.parameters("another")})

    for answer in (in_flight, again):
        assert answer.status_code == 200
        assert answer.headers["Idempotent-Replayed"] == "true"
        assert (answer.json()["task_id"], answer.json()["duplicate"]) == (task_id, True)
    assert again.json()["status"] == "completed"
    assert again.json()["result"] == first["result"]
    assert other.status_code == 422
    assert other.headers["Content-Type"].startswith("application/problem+json")
    assert other.json()["type"].endswith("idempotency-key-reused")
    assert api.task(task_id) == first
    assert len(ledger.executions(task_id)) == ledger.count("executions") == ledger.count("tasks") == 1
    assert diary.task_ids() == [task_id]


def test_agent_offline_status_detected(api: HttpClient, agents: Agents, ledger: LedgerReader) -> None:
    threshold = 3
    crashing, leaving = agents.launch("crashing"), agents.launch("leaving")
    assert crashing.ready()
    assert leaving.ready()
    assert api.agent(crashing.agent_id)["status"] == api.agent(leaving.agent_id)["status"] == "online"

    crashing.kill()
    offline = False
    while not offline:
        at_least = ledger.silence_of(crashing.agent_id)
        offline = api.agent(crashing.agent_id)["status"] == "offline"
        at_most = ledger.silence_of(crashing.agent_id)
        assert at_most > threshold if offline else at_least < threshold, "offline after the threshold, and not before"

    assert api.agent(leaving.agent_id)["status"] == "online"
    leaving.kill("SIGTERM")
    assert api.agent(leaving.agent_id)["status"] == "offline"


# Persistence


def test_durable_queue_survives_restart(
    mortal_broker: BrokerNode, apis: Apis, agents: Agents, amqp_client: RawAmqp, diary: Diary
) -> None:
    api = apis.start()
    task_id = api.dispatch("test.append", diary.parameters("durable"))
    api.wait_for(task_id, "queued")
    apis.stop()

    mortal_broker.kill()
    mortal_broker.restart()

    (message,) = amqp_client.look("work_queue")
    assert message.headers["id"] == task_id
    apis.resume()
    agents.start()
    api.wait_for(task_id, "completed")
    assert diary.task_ids() == [task_id]


def test_priority_queue_ordering(api: HttpClient, agents: Agents, diary: Diary) -> None:
    for priority in (1, 3, 5, 2, 4):
        api.wait_for(api.dispatch("test.append", diary.parameters(priority), priority=priority), "queued")

    agents.start(concurrency=1)

    eventually("all five", lambda: len(diary.entries()) == 5)
    assert diary.notes() == [5, 4, 3, 2, 1]


def test_dead_letter_queue_captures_failures(
    mortal_broker: BrokerNode, celery_worker: AgentNode, amqp_client: RawAmqp
) -> None:
    bodies = [b"malformed %d" % number for number in range(10)]
    amqp_client.publish(*bodies)
    eventually("ten dead letters", lambda: amqp_client.ready("dlx_queue") == 10)

    mortal_broker.restart()

    assert amqp_client.ready("dlx_queue") == 10
    assert sorted(letter.body for letter in amqp_client.look("dlx_queue")) == bodies


# Concurrency


def test_concurrent_dispatch_and_consume(api: HttpClient, agents: Agents, ledger: LedgerReader, diary: Diary) -> None:
    team = [agents.launch("first", concurrency=2), agents.launch("second", concurrency=2)]
    assert all(agent.ready() for agent in team)

    def dispatch(number: int) -> tuple[str, int]:
        return api.dispatch("test.append", diary.parameters(number), priority=1 + number % 5), number

    with ThreadPoolExecutor(8) as threads:
        sent = dict(threads.map(dispatch, range(120)))

    for task_id, number in sent.items():
        assert api.wait_for(task_id, "completed")["result"]["note"] == number
    assert diary.has_each_once(sent)
    assert ledger.count("executions") == 120


def test_agent_registry_updates_concurrently(api: HttpClient, agents: Agents) -> None:
    team = [agents.launch(name) for name in ("first", "second", "third")]
    names = {agent.agent_id for agent in team if agent.ready()}
    beats: dict[str, set[str]] = {name: set() for name in names}

    def each_has_beaten_three_times() -> bool:
        found = {agent["agent_id"]: agent for agent in api.get("/agents")["items"]}
        assert found.keys() == names
        assert {agent["status"] for agent in found.values()} == {"online"}
        for name, agent in found.items():
            beats[name].add(agent["last_heartbeat_at"])
        return all(len(moments) > 3 for moments in beats.values())

    eventually("three heartbeats of each", each_has_beaten_three_times)

    sent = {api.dispatch("slow_echo", {"input": number, "seconds": 4}) for number in range(3)}

    def busy() -> dict[str, list[str]]:
        found = api.get("/agents")["items"]
        return {agent["agent_id"]: agent["current_task_ids"] for agent in found if agent["status"] == "busy"}

    at_work = eventually("each to be busy", lambda: found if len(found := busy()) == 3 else None)
    assert at_work is not None
    assert {tuple(task_ids) for task_ids in at_work.values()} == {(task_id,) for task_id in sent}
    for name, (task_id,) in at_work.items():
        assert api.wait_for(task_id, "completed")["agent_id"] == name


def test_result_listener_handles_concurrent_results(
    api: HttpClient,
    agents: Agents,
    celery_setup: CeleryTestSetup,
    ledger: LedgerReader,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Who waits in this process reads only when woken. The API also looks by itself, each 5 s.

    That it is woken before is held by `test_many_waiters_are_each_woken_with_their_own`.
    """
    monkeypatch.setattr(celery_setup.app.backend.listener, "reread", 3600.0)
    agents.start("second", concurrency=7)
    together = time.time() + 3

    def by_http(work_type: str, parameters: dict[str, Any]) -> tuple[str, Any]:
        answer = api.post("/dispatch", {"work_type": work_type, "parameters": parameters}, Prefer="wait=30")
        assert (answer.status_code, answer.headers["Preference-Applied"]) == (200, "wait=30")
        task = answer.json()
        return task["task_id"], task["result"] if task["status"] == "completed" else task["error"]["message"]

    def by_celery(work_type: str, parameters: dict[str, Any]) -> tuple[str, Any]:
        sent = celery_setup.app.send_task(work_type, kwargs=parameters, exchange="work", routing_key="work_queue")
        began = time.monotonic()
        found = sent.get(timeout=60, propagate=False)
        assert time.monotonic() - began < 60, "nobody woke it"
        return sent.id, str(found) if isinstance(found, Exception) else found

    ending_at_once = [("test.finish_at", {"at": together, "note": f"note {n}"}, f"note {n}") for n in range(8)]
    failing = [("fail", {"message": f"no {n}"}, f"no {n}") for n in range(8)]
    quick = [("echo", {"input": f"echo {n}"}, {"output": f"echo {n}"}) for n in range(8)]
    wanted = [(ask, *one) for one in [*ending_at_once, *failing, *quick] for ask in (by_http, by_celery)]

    with ThreadPoolExecutor(len(wanted)) as waiters:
        got = list(waiters.map(lambda one: one[0](one[1], one[2]), wanted))

    assert [result for _, result in got] == [expected for *_, expected in wanted]
    stored = {row["task_id"]: row for row in ledger.rows("SELECT * FROM results")}
    assert stored.keys() == {task_id for task_id, _ in got}
    for (task_id, result), (_, work_type, *_) in zip(got, wanted, strict=True):
        if work_type == "fail":
            assert (stored[task_id]["status"], api.task(task_id)["status"]) == ("FAILURE", "failed")
        else:
            assert (stored[task_id]["status"], stored[task_id]["result"]) == ("SUCCESS", result)


# Idempotency


def test_request_cache_prevents_duplicate_execution(
    api: HttpClient, agents: Agents, amqp_client: RawAmqp, ledger: LedgerReader, diary: Diary
) -> None:
    agents.start(concurrency=4)
    over_http = {"work_type": "test.append", "parameters": diary.parameters("http"), "request_id": "by-http"}

    with ThreadPoolExecutor(8) as threads:
        answers = list(threads.map(lambda _: api.post("/dispatch", over_http), range(8)))

    assert sorted(answer.status_code for answer in answers) == [200] * 7 + [202]
    (task_id,) = {answer.json()["task_id"] for answer in answers}
    first = api.wait_for(task_id, "completed")

    raw = diary.parameters("raw")
    amqp_client.publish_json(
        envelope("test.append", raw, request_id="by-message", task_id="raw-1"),
        envelope("test.append", raw, request_id="by-message", task_id="raw-2"),
        envelope("test.append", diary.parameters("http"), request_id="by-http", task_id="raw-3"),
    )
    eventually("the three messages to be tasks", lambda: ledger.count("tasks") == 4)
    raw_1, raw_2, raw_3 = (api.wait_for(name, "completed") for name in ("raw-1", "raw-2", "raw-3"))

    assert raw_1["result"] == raw_2["result"]
    assert raw_3["result"] == first["result"]
    assert sorted(diary.notes()) == ["http", "raw"]
    assert len(ledger.executions("raw-1") + ledger.executions("raw-2")) == 1
    assert ledger.executions("raw-3") == []
    assert ledger.count("executions") == 2


def test_idempotency_cache_expires(apis: Apis, agents: Agents, ledger: LedgerReader, diary: Diary) -> None:
    api = apis.start(idempotency_ttl=3)
    agents.start(idempotency_ttl=3)
    order = {"work_type": "test.append", "parameters": diary.parameters("again"), "request_id": "order-7"}
    first = api.wait_for(api.post("/dispatch", order).json()["task_id"], "completed")

    answers = [api.post("/dispatch", order)]
    eventually(
        "the key to expire", lambda: answers.append(api.post("/dispatch", order)) or answers[-1].status_code == 202
    )

    for earlier in answers[:-1]:
        assert (earlier.status_code, earlier.json()["task_id"]) == (200, first["task_id"])
    second = api.wait_for(answers[-1].json()["task_id"], "completed")
    assert second["task_id"] != first["task_id"]
    kept_for = ledger.rows(
        "SELECT extract(epoch FROM b.created_at - a.finished_at) AS seconds FROM tasks a, tasks b"
        " WHERE a.task_id = %s AND b.task_id = %s",
        first["task_id"],
        second["task_id"],
    )
    assert kept_for[0]["seconds"] >= 3
    assert diary.task_ids() == [first["task_id"], second["task_id"]]
    assert ledger.count("executions") == 2


# Health


def test_queue_depth_query(api: HttpClient, agents: Agents) -> None:
    sent = [api.dispatch("echo", {"input": number}) for number in range(5)]
    for task_id in sent:
        api.wait_for(task_id, "queued")

    assert (api.queue()["ready"], api.queue()["consumers"]) == (5, 0)

    agents.start()
    for task_id in sent:
        api.wait_for(task_id, "completed")
    assert (api.queue()["ready"], api.queue()["consumers"]) == (0, 1)


def test_dlx_queue_inspection(
    api: HttpClient, celery_worker: AgentNode, amqp_client: RawAmqp, ledger: LedgerReader
) -> None:
    bodies = [f"malformed {number}" for number in range(5)]
    amqp_client.publish(*(body.encode() for body in bodies), headers={"x-sender": "a stranger"})
    eventually("five dead letters", lambda: amqp_client.ready("dlx_queue") == 5)

    letters = api.get("/dead-letters")["items"]

    assert [letter["body"] for letter in letters] == bodies
    for letter in letters:
        assert (letter["queue"], letter["reason"]) == ("work_queue", "rejected")
        assert letter["headers"]["x-sender"] == "a stranger"
    assert api.get("/dead-letters")["items"] == letters
    assert amqp_client.ready("dlx_queue") == 5

    mended = envelope("echo", {"input": "mended"}, task_id="mended")
    replayed = api.post("/dead-letters/replay", {"ids": [letters[2]["id"]], "body": mended})
    assert (replayed.status_code, replayed.json()["replayed"]) == (202, 1)
    eventually("the mended one to be a task", lambda: ledger.task("mended"))
    assert api.wait_for("mended", "completed")["result"] == {"output": "mended"}
    assert [letter["body"] for letter in api.get("/dead-letters")["items"]] == [*bodies[:2], *bodies[3:]]

    discarded = api.post("/dead-letters/discard", {"all": True})
    assert (discarded.status_code, discarded.json()["discarded"]) == (202, 4)
    assert amqp_client.ready("dlx_queue") == 0
    assert api.get("/dead-letters")["items"] == []


# Beyond them


def test_broker_outage_loses_no_dispatch(
    mortal_broker: BrokerNode, api: HttpClient, agents: Agents, diary: Diary
) -> None:
    agents.start()
    before = api.dispatch("test.append", diary.parameters("before"))
    api.wait_for(before, "completed")

    mortal_broker.kill()
    during = [api.dispatch("test.append", diary.parameters("during")) for _ in range(5)]
    assert {api.task(task_id)["status"] for task_id in during} == {"pending"}
    mortal_broker.restart()

    eventually("everything to be done", lambda: len(diary.entries()) >= 6)
    for task_id in during:
        api.wait_for(task_id, "completed")
    assert diary.has_each_once([before, *during])


def test_native_celery_client_works(
    stack: StackUnderTest, celery_setup: CeleryTestSetup, agents: Agents, ledger: LedgerReader, diary: Diary
) -> None:
    agents.start("second", concurrency=2)
    assert celery_setup.ready(control=True)
    urls = celery_setup.app.conf.broker_url, celery_setup.app.conf.result_backend
    client = stack.program("client", "tests.e2e.bare_celery_client", *urls, str(diary.path))

    client.launch()
    eventually("the client to end", lambda: client.exit_code is not None, within=90)

    assert client.exit_code == 0, client.tail()
    got = json.loads(client.tail(1))
    assert got["send_task"] == {"output": "by name"}
    assert got["state"] == "SUCCESS"
    assert got["countdown"] == {"output": "in a second"}
    assert (got["failure"], got["failed_state"]) == ("no", "FAILURE")
    assert (got["broken_chain"], got["before_the_break"]) == ("broken", {"output": "kept"})
    assert got["group"] == [0, 1, 2, 3, 4]
    assert got["chain"] == {"output": {"output": {"output": "a"}}}
    assert got["first_of_the_chain"] == {"output": "a"}
    assert got["chord"] == {"output": [{"output": 0}, {"output": 1}, {"output": 2}]}
    assert got["nested"] == {"output": [{"output": {"output": "first"}}, {"output": {"output": "first"}}]}
    assert got["unknown"] == "PENDING"
    assert "chiffon.agent.app" not in got["rooms_of_the_agent"]
    assert sorted(diary.notes()) == [0, 1, 2, 3, 4]
    assert {len(ledger.executions(task_id)) for task_id in got["sent"]} == {1}


def test_flower_shows_the_work(api: HttpClient, celery_worker: AgentNode, flower: Flower) -> None:
    eventually("Flower to see the agent", lambda: celery_worker.agent_id in flower.show("/api/workers?refresh=1"))
    done = api.dispatch("echo", {"input": {"shown": "as it is", "password": "not to be shown"}})
    failed = api.dispatch("fail", {"message": "shown too: amqp://user:not-to-be-shown@host"})

    def shown(task_id: str, state: str) -> dict[str, Any] | None:
        task: dict[str, Any] = flower.show("/api/tasks").get(task_id, {})
        return task if task.get("state") == state else None

    success = eventually("Flower to show the result", lambda: shown(done, "SUCCESS"))
    failure = eventually("Flower to show the failure", lambda: shown(failed, "FAILURE"))

    assert success is not None
    assert failure is not None
    assert (success["name"], success["worker"]) == ("echo", celery_worker.agent_id)
    assert "as it is" in success["result"]
    assert "as it is" in success["kwargs"]
    assert "shown too" in failure["exception"]
    pages = ["/", "/workers", f"/worker/{celery_worker.agent_id}", "/tasks", f"/task/{done}"]
    for path in (*pages, "/api/workers?refresh=1", "/api/tasks", f"/api/task/info/{done}"):
        assert not re.search("not.to.be.shown", flower.get(path).text), path
        assert flower.get(path).status_code == 200, path
        assert flower.get(path, login=None).status_code == 401, path
        assert flower.get(path, login=("chiffon", "guessed")).status_code == 401, path


@pytest.mark.timeout(1800)  # it installs everything, once more
def test_quickstart_is_true(services: Services, tmp_path: Path) -> None:
    clone = tmp_path / "clone"
    subprocess.run(["git", "clone", "--quiet", REPOSITORY, clone], check=True)
    pages = {name: parse((clone / name).read_text()) for name in ("README.md", "docs/http-api.md", "docs/work.md")}
    files = [block for block in pages["docs/work.md"] if "title" in block.options]  # agents find them when they start

    reader = Reader(clone, tmp_path)
    try:
        reader.follow(files, "docs/work.md")
        for page, blocks in pages.items():
            reader.follow(blocks, page)
        reader.close()
    finally:
        reader.kill()

    typed = "\n".join(block.script for block in reader.typed)
    for promised in (
        "make up",
        "make demo",
        "/dispatch",
        "celery -A chiffon worker",
        "flask",
        "celery -A chiffon flower",
    ):
        assert promised in typed, f"the README should show {promised!r}"
