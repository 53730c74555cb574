"""Metrics, read as Prometheus reads them. The agent is one that the test plays."""

from __future__ import annotations

import socket

import pytest
from prometheus_client.openmetrics.parser import text_string_to_metric_families as parse_open
from prometheus_client.parser import text_string_to_metric_families as parse

from chiffon.domain.states import State
from chiffon.domain.verdicts import Failed, RetryLater, WorkError
from chiffon.ledger import patience
from chiffon.ledger.patience import Patience
from tests.api import NOBODY, DocumentedClient, api, dispatch
from tests.bench import Bench
from tests.hand_agent import HandAgent
from tests.log_notes import LogNotes

ERROR = WorkError("ValueError", "no")


@pytest.fixture
def client(ledger_url: str, broker_url: str) -> DocumentedClient:
    return api(database_url=ledger_url, broker_url=broker_url)


def metrics(client: DocumentedClient, *, accept: str = "") -> dict[tuple[str, ...], float]:
    """Each value, by the name and the labels' values, in the order of the labels' names."""
    response = client.get("/metrics", headers={"Accept": accept} if accept else {})
    assert response.status_code == 200
    families = (parse_open if "openmetrics" in response.content_type else parse)(response.text)
    return {
        (s.name, *(value for _, value in sorted(s.labels.items()))): s.value
        for family in families
        for s in family.samples
    }


def test_it_says_what_waits_runs_and_has_ended_and_who_is_there(client: DocumentedClient, ledger_url: str) -> None:
    with HandAgent(ledger_url) as agent:
        for _ in range(3):
            agent.complete(dispatch(client), "done")
        agent.settle(agent.claim(dispatch(client)), Failed(ERROR))
        agent.settle(agent.claim(dispatch(client)), RetryLater(60.0, ERROR))
        agent.claim(dispatch(client))
        dispatch(client, delay_seconds=60)
        for _ in range(2):
            dispatch(client)
        found = metrics(client)
    assert found["chiffon_ledger_up",] == found["chiffon_broker_up",] == 1
    assert found["chiffon_queue_waiting_tasks", "work_queue"] == 2
    assert found["chiffon_queue_running_tasks", "work_queue"] == 1
    assert found["chiffon_queue_oldest_task_age_seconds", "work_queue"] > 0
    assert found["chiffon_delayed_tasks", "scheduled"] == found["chiffon_delayed_tasks", "retrying"] == 1
    assert found["chiffon_owed_dead_letters",] == 1
    assert found["chiffon_agents", "online"] == 1
    assert found["chiffon_agents", "offline"] == 0
    assert found["chiffon_ended_tasks", "completed", "echo"] == 3
    assert found["chiffon_ended_tasks", "failed", "echo"] == 1
    assert found["chiffon_run_seconds", "0.99", "completed", "echo"] >= 0


def test_work_types_that_nobody_knows_are_one(client: DocumentedClient, bench: Bench) -> None:
    bench.agent(work_types=["known.there"])  # and `echo` is known here
    for name in ("echo", "known.there", "made.up", "made.up.too"):
        bench.task_in(State.DEAD_LETTERED, work_type=name)
    found = metrics(client)
    ended = {name[2]: many for name, many in found.items() if name[0] == "chiffon_ended_tasks"}
    assert ended == {"echo": 1, "known.there": 1, "other": 2}


def test_what_has_ended_long_ago_is_told_no_more(client: DocumentedClient, ledger_url: str, bench: Bench) -> None:
    with HandAgent(ledger_url) as agent:
        agent.complete(dispatch(client), "done")
    bench.sql("UPDATE results SET date_done = date_done - interval '61 seconds' RETURNING task_id")
    assert not [name for name in metrics(client) if name[0] == "chiffon_ended_tasks"]


def test_what_ended_while_it_waited_for_a_retry_did_not_run_meanwhile(client: DocumentedClient, bench: Bench) -> None:
    claim = bench.claimed(bench.born())
    bench.settle(claim, RetryLater(3600.0, ERROR), ran_for=1.0)
    bench.pass_time(30)
    assert client.post(f"/tasks/{claim.task_id}/cancel").status_code == 200
    found = metrics(client)
    assert found["chiffon_ended_tasks", "cancelled", "echo"] == 1
    assert not [name for name in found if name[0] == "chiffon_run_seconds"]


def test_the_run_that_ended_a_task_is_measured(client: DocumentedClient, bench: Bench) -> None:
    bench.settle(bench.claimed(bench.born()), Failed(ERROR), ran_for=7.0)
    assert metrics(client)["chiffon_run_seconds", "0.5", "failed", "echo"] == pytest.approx(7, abs=1)


def test_the_broker_s_figures_are_missing_while_it_is_away(ledger_url: str) -> None:
    found = metrics(api(database_url=ledger_url))
    assert (found["chiffon_ledger_up",], found["chiffon_broker_up",]) == (1, 0)
    assert found["chiffon_queue_waiting_tasks", "work_queue"] == 0
    assert ("chiffon_queue_ready_messages", "work_queue") not in found


def test_a_ledger_that_is_away_is_told_and_no_failure(broker_url: str) -> None:
    client = api(database_url=f"postgresql://{NOBODY}/nothing", broker_url=broker_url)
    assert metrics(client) == {("chiffon_ledger_up",): 0}


@pytest.mark.parametrize("seconds", [1.0, 10.0])  # before its own limit for locks, and after
def test_a_ledger_that_cannot_count_answers_all_the_same(
    ledger_url: str, broker_url: str, bench: Bench, monkeypatch: pytest.MonkeyPatch, seconds: float
) -> None:
    notes = LogNotes()
    monkeypatch.setattr("chiffon.dispatch.measure.log", notes)
    monkeypatch.setattr(patience, "patience", Patience(seconds))
    with bench.transaction() as holder:
        holder.execute("LOCK TABLE results")
        assert metrics(api(database_url=ledger_url, broker_url=broker_url)) == {("chiffon_ledger_up",): 1}
    assert len(notes.said("metrics_incomplete")) == 1


def test_a_ledger_without_tables_is_told_as_one_that_is_away(database_url: str) -> None:
    assert metrics(api(database_url=database_url)) == {("chiffon_ledger_up",): 0}


def test_the_management_api_is_not_asked(ledger_url: str, broker_url: str) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        url = f"http://127.0.0.1:{server.getsockname()[1]}"
        client = api(database_url=ledger_url, broker_url=broker_url, management_url=url)
        assert metrics(client)["chiffon_broker_up",] == 1
        server.setblocking(False)
        with pytest.raises(BlockingIOError):
            server.accept()


def test_open_metrics_are_given_to_who_accepts_them(client: DocumentedClient) -> None:
    assert metrics(client, accept="application/openmetrics-text; version=1.0.0")["chiffon_ledger_up",] == 1


@pytest.mark.parametrize("accept", ['text/plain; version="0.0.4"', "application/openmetrics-text; version=abc"])
def test_a_version_that_nobody_has_gets_the_plain_form(accept: str) -> None:
    answer = api().get("/metrics", headers={"Accept": accept})
    assert (answer.status_code, answer.content_type) == (200, "text/plain; version=0.0.4; charset=utf-8")


def test_it_asks_for_a_key_as_everything_does(ledger_url: str) -> None:
    answer = api(database_url=ledger_url, api_keys=("secret",)).get("/metrics")
    assert answer.status_code == 401
