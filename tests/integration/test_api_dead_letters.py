"""Dead letters and queues over HTTP, with a real broker and ledger. The agent is one that the test plays."""

from __future__ import annotations

import base64
import contextlib
import json
from collections.abc import Iterator
from datetime import datetime
from decimal import Decimal
from functools import partial
from typing import Any
from uuid import uuid4

import amqp
import pytest

from chiffon.agent.continuations import bear_condemned
from chiffon.bus.dead_letters import look
from chiffon.bus.letters import DOORBELL
from chiffon.config import Settings
from chiffon.domain.errors import Busy
from chiffon.ledger.condemn import UNREADABLE
from chiffon.ledger.connect import Ledger
from chiffon.ledger.hands import DEAD_LETTERS, one_hand
from tests.api import DocumentedClient, api, problem
from tests.bells import bare_channel, bell, dead_letter
from tests.builders import new_task
from tests.e2e.waiting import eventually
from tests.hand_agent import HandAgent

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}
MALFORMED = [b"not json", b"\xff\xfe\x00", b"", b"[]", b'{"protocol_version": "1.0"}']


@pytest.fixture
def client(ledger_url: str, broker_url: str) -> DocumentedClient:
    client = api(database_url=ledger_url, broker_url=broker_url)
    assert get(client, "/dead-letters") == []  # declares the topology
    return client


@pytest.fixture
def channel(broker_url: str) -> Iterator[Any]:
    with bare_channel(broker_url) as channel:
        yield channel


@pytest.fixture
def agent(ledger_url: str) -> Iterator[HandAgent]:
    with HandAgent(ledger_url) as agent:
        yield agent


def get(client: DocumentedClient, path: str, **query: Any) -> list[dict[str, Any]]:
    response = client.get(path, query_string=query)
    assert response.status_code == 200, response.text
    assert response.json is not None
    items: list[dict[str, Any]] = response.json["items"]
    return items


def post(client: DocumentedClient, step: str, **choice: Any) -> dict[str, Any]:
    response = client.post(f"/dead-letters/{step}", json=choice)
    assert response.status_code == 202, response.text
    said: dict[str, Any] = response.json or {}
    return said


def counts(said: dict[str, Any]) -> dict[str, Any]:
    return {name: value for name, value in said.items() if value and name not in {"matched", "why"}}


def publish(channel: Any, body: bytes, *, exchange: str = "work", **properties: Any) -> None:
    channel.basic_publish(amqp.Message(body, **{"delivery_mode": 2} | properties), exchange, "work_queue")


def reject(channel: Any, body: bytes, **properties: Any) -> None:
    """Publish a message as anybody may, and reject it as an agent does."""
    before = depth(channel, "dlx_queue")
    publish(channel, body, **properties)
    message = eventually("the message to be there", lambda: channel.basic_get("work_queue"))
    channel.basic_reject(message.delivery_tag, requeue=False)
    eventually("the dead letter", lambda: depth(channel, "dlx_queue") > before)


def depth(channel: Any, queue: str) -> int:
    return int(channel.queue_declare(queue, passive=True).message_count)


def letter_of(client: DocumentedClient, channel: Any, task_id: str) -> str:
    """Put the dead letter of a task into `dlx_queue`, as the ringer does; its id."""
    letter = dead_letter(bell(task_id=task_id), "it said no")
    headers, said = dict(letter.message.headers), letter.message
    publish(channel, said.body, exchange=letter.exchange, application_headers=headers, **said.properties)
    found = eventually("the letter to be there", lambda: get(client, "/dead-letters", task_id=task_id))
    return str(found[0]["id"])


def failed(client: DocumentedClient, agent: HandAgent, **fields: Any) -> str:
    said = client.post("/dispatch", json={**ECHO, **fields}).json
    assert said is not None
    agent.fail(said["task_id"])
    return str(said["task_id"])


def test_looking_shows_everything_and_takes_nothing(client: DocumentedClient, channel: Any) -> None:
    for body in MALFORMED:
        reject(channel, body, application_headers={"from": "a test"}, content_type="text/x")
    seen = get(client, "/dead-letters")
    assert [_body(letter) for letter in seen] == MALFORMED
    assert [letter["body_encoding"] for letter in seen] == ["text", "base64", "text", "text", "text"]
    for letter in seen:
        assert (letter["queue"], letter["reason"]) == ("work_queue", "rejected")
        assert letter["headers"]["from"] == "a test"
        assert letter["properties"]["content_type"] == "text/x"
        assert letter["died_at"].endswith("Z")
        assert letter["task_id"] is None
    assert get(client, "/dead-letters") == seen
    assert depth(channel, "dlx_queue") == 5


def test_headers_that_json_has_no_word_for_are_shown(client: DocumentedClient, channel: Any) -> None:
    odd = {"at": datetime(2030, 1, 2, 3, 4, 5), "price": Decimal("1.5"), "deep": {"list": [1, None, True]}}
    publish(channel, b"x", exchange="dlx_exchange", application_headers=odd)
    letter = eventually("the letter", lambda: get(client, "/dead-letters"))[0]
    assert letter["headers"]["at"] == "2030-01-02T03:04:05Z"
    assert letter["headers"]["price"] == "1.5"
    assert letter["headers"]["deep"] == {"list": [1, None, True]}
    assert (letter["queue"], letter["reason"]) == (None, None)


def test_ids_that_are_no_text_keep_nobody_from_the_other_letters(client: DocumentedClient, channel: Any) -> None:
    ids = {"message_id": "\ud800", "application_headers": {DOORBELL: 1, "id": "\udfff"}}
    for odd in ({"message_id": "\ud800"}, ids):
        publish(channel, b"x", exchange="dlx_exchange", **odd)
    reject(channel, b"not json")
    seen = get(client, "/dead-letters")
    assert len({letter["id"] for letter in seen}) == 3
    assert get(client, "/dead-letters") == seen
    assert counts(post(client, "replay", ids=[seen[2]["id"]], dry_run=True)) == {"dry_run": True}
    assert counts(post(client, "discard", all=True)) == {"discarded": 3}
    assert get(client, "/dead-letters") == []


def test_a_mended_letter_is_published_again_and_the_rest_discarded(client: DocumentedClient, channel: Any) -> None:
    for body in MALFORMED:
        reject(channel, body)
    letter = get(client, "/dead-letters")[0]["id"]
    envelope = {"protocol_version": "1.0", "type": "work_request", "payload": ECHO}
    assert counts(post(client, "replay", ids=[letter], body=envelope)) == {"replayed": 1}
    message = eventually("the mended message", lambda: channel.basic_get("work_queue", no_ack=True))
    assert json.loads(message.body) == envelope
    assert message.properties["content_type"] == "application/json"
    assert counts(post(client, "discard", all=True)) == {"discarded": 4}
    assert get(client, "/dead-letters") == []


def test_a_letter_is_replayed_as_it_was(client: DocumentedClient, channel: Any) -> None:
    reject(channel, b"\xff", application_headers={"id": "anybody", "task": "their.work"}, content_type="text/x")
    [letter] = get(client, "/dead-letters", work_type="their.work")
    assert (letter["task_id"], letter["doorbell"]) == ("anybody", False)
    assert counts(post(client, "replay", ids=[letter["id"]])) == {"replayed": 1}
    message = eventually("the message", lambda: channel.basic_get("work_queue", no_ack=True))
    assert (bytes(message.body), message.properties["content_type"]) == (b"\xff", "text/x")
    assert depth(channel, "dlx_queue") == 0


def test_a_letter_of_a_task_is_replayed_through_the_ledger(
    client: DocumentedClient, channel: Any, agent: HandAgent
) -> None:
    task_id = failed(client, agent)
    eventually("the first doorbell", lambda: channel.basic_get("work_queue", no_ack=True))
    letter = letter_of(client, channel, task_id)
    assert counts(post(client, "replay", ids=[letter])) == {"replayed": 1}
    assert depth(channel, "dlx_queue") == 0
    bell = eventually("the second doorbell", lambda: channel.basic_get("work_queue", no_ack=True))
    assert bell.application_headers["id"] == task_id
    agent.complete(task_id, 1)


def test_a_letter_whose_task_was_replayed_meanwhile_goes_by_itself(
    client: DocumentedClient, channel: Any, agent: HandAgent
) -> None:
    task_id = failed(client, agent)
    letter_of(client, channel, task_id)
    assert client.post(f"/tasks/{task_id}/replay").status_code == 202
    assert counts(post(client, "replay", all=True)) == {"settled": 1}
    assert get(client, "/dead-letters") == []


def test_a_letter_that_cannot_be_replayed_stays_and_says_why(
    client: DocumentedClient, channel: Any, agent: HandAgent, ledger_url: str
) -> None:
    gone = letter_of(client, channel, str(uuid4()))
    briefly = HandAgent(ledger_url, "brief@test", ttl=0)
    overtaken = letter_of(client, channel, failed(client, briefly, request_id="once"))
    assert client.post("/dispatch", json={**ECHO, "request_id": "once"}).status_code == 202
    kept = {kept["id"]: kept["why"] for kept in post(client, "replay", all=True)["kept"]}
    assert "no longer has its task" in kept[gone]
    assert "belongs to another task" in kept[overtaken]
    assert len(get(client, "/dead-letters")) == 2


def test_a_letter_of_a_task_cannot_be_mended(client: DocumentedClient, channel: Any, agent: HandAgent) -> None:
    letter = letter_of(client, channel, failed(client, agent))
    [kept] = post(client, "replay", ids=[letter], body={})["kept"]
    assert "dispatch it anew" in kept["why"]


def test_a_letter_that_could_not_be_read_is_mended_although_its_task_is_there(
    client: DocumentedClient, channel: Any, ledger_url: str
) -> None:
    task_id = str(uuid4())
    unread = new_task(task_id=task_id, work_type=UNREADABLE, parameters={}, keyed=False, origin="message")
    ledger = Ledger(Settings(database_url=ledger_url).database_url)
    with contextlib.closing(ledger), ledger.transaction() as cursor:
        bear_condemned(cursor, unread, "its body is no JSON", Settings())
    reject(channel, b"{", application_headers={"id": task_id, "task": "echo"})
    assert client.post(f"/tasks/{task_id}/replay").status_code == 409, "nobody knows what it was to do"
    mended = [[], {"input": 1}, {}]
    assert counts(post(client, "replay", filter={"task_id": task_id}, body=None)) == {"replayed": 1}
    message = eventually("the message as it was", lambda: channel.basic_get("work_queue"))
    channel.basic_reject(message.delivery_tag, requeue=False)
    [letter] = eventually("it to be back", lambda: get(client, "/dead-letters"))
    assert counts(post(client, "replay", ids=[letter["id"]], body=mended)) == {"replayed": 1}
    message = eventually("the mended message", lambda: channel.basic_get("work_queue", no_ack=True))
    assert json.loads(message.body) == mended
    assert message.application_headers["id"] == task_id


def test_a_dry_run_only_counts(client: DocumentedClient, channel: Any) -> None:
    for body in MALFORMED:
        reject(channel, body)
    for step in ("replay", "discard"):
        said = post(client, step, all=True, dry_run=True)
        assert (said["matched"], said["dry_run"]) == (5, True)
    assert depth(channel, "dlx_queue") == 5


def test_a_dry_run_counts_what_no_page_would_hold(
    client: DocumentedClient, channel: Any, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr("chiffon.bus.dead_letters.look", partial(look, max_bytes=1))
    for body in MALFORMED:
        reject(channel, body)
    assert post(client, "discard", all=True, dry_run=True)["matched"] == 5
    assert len(get(client, "/dead-letters")) < 5


def test_pages_lead_through_all_that_fit(client: DocumentedClient, channel: Any) -> None:
    for number in range(6):
        reject(channel, b"%d" % number, application_headers={"task": f"work.{number % 2}"})
    first = client.get("/dead-letters?work_type=work.1&limit=2").json
    assert first is not None
    assert [letter["body"] for letter in first["items"]] == ["1", "3"]
    rest = client.get("/dead-letters", query_string={"work_type": "work.1", "cursor": first["next_cursor"]}).json
    assert rest is not None
    assert ([letter["body"] for letter in rest["items"]], rest["next_cursor"]) == (["5"], None)


def test_a_cursor_whose_letter_is_gone_is_refused(client: DocumentedClient, channel: Any) -> None:
    for body in (b"0", b"1", b"2"):
        reject(channel, body)
    page = client.get("/dead-letters?limit=2").json
    assert page is not None
    assert post(client, "discard", ids=[page["items"][1]["id"]])["discarded"] == 1
    refused = client.get("/dead-letters", query_string={"cursor": page["next_cursor"]})
    assert problem(refused) == (422, "invalid-input", {"cursor"})
    assert "begin anew" in refused.text


def test_ids_that_no_letter_has_are_named(client: DocumentedClient, channel: Any) -> None:
    reject(channel, b"x")
    letter = get(client, "/dead-letters")[0]["id"]
    said = post(client, "discard", ids=[letter, "nobody"])
    assert counts(said) == {"discarded": 1, "missing": ["nobody"]}


def test_filters_choose(client: DocumentedClient, channel: Any, agent: HandAgent) -> None:
    reject(channel, b"x", application_headers={"task": "their.work"})
    task_id = failed(client, agent)
    ringers = letter_of(client, channel, task_id)
    rejected = get(client, "/dead-letters", reason="rejected")[0]["id"]

    def ids(**query: Any) -> list[str]:
        return [letter["id"] for letter in get(client, "/dead-letters", **query)]

    assert ids(reason="said no") == ids(task_id=task_id) == ids(work_type="echo") == [ringers]
    assert ids(work_type="their.work") == [rejected]
    assert ids(until="2001-01-01T00:00:00Z") == ids(queue="work_queue.other") == []
    assert ids(limit=1) == [rejected]
    assert post(client, "discard", filter={"reason": "rejected"})["discarded"] == 1
    assert ids() == [ringers]


def test_queues_tell_what_waits(client: DocumentedClient, channel: Any, agent: HandAgent) -> None:
    for _ in range(5):
        assert client.post("/dispatch", json=ECHO).status_code == 202
    eventually("five doorbells", lambda: depth(channel, "work_queue") >= 5)
    work = next(queue for queue in get(client, "/queues") if queue["queue"] == "work_queue")
    assert (work["waiting"], work["running"], work["consumers"], work["unacked"]) == (5, 0, 0, None)
    assert work["ready"] == depth(channel, "work_queue")
    assert work["oldest_age_seconds"] >= 0
    eventually("health", lambda: client.get("/health/ready").json["ringer"] == "connected")  # type: ignore[index]
    assert client.get("/health/ready").json["status"] == "ready"  # type: ignore[index]


def test_without_a_broker_the_ledgers_figures_are_there(ledger_url: str) -> None:
    client = api(database_url=ledger_url)
    assert client.post("/dispatch", json=ECHO).status_code == 202
    said = client.get("/queues").json
    assert said is not None
    assert (said["items"][0]["ready"], said["items"][0]["waiting"]) == (None, 1)
    assert "RabbitMQ does not answer" in said["broker_problem"]
    health = client.get("/health/ready").json
    assert health is not None
    assert (health["status"], health["broker"]) == ("degraded", "unreachable")
    assert problem(client.get("/dead-letters")) == (503, "broker-unavailable", set())


def test_one_hand_at_a_time(ledger_url: str) -> None:
    ledger = Ledger(Settings(database_url=ledger_url).database_url)
    with one_hand(ledger, DEAD_LETTERS):
        with pytest.raises(Busy), one_hand(ledger, DEAD_LETTERS, patience=0.1):
            pass
        with one_hand(ledger, DEAD_LETTERS + 1, patience=0.1):
            pass
    with one_hand(ledger, DEAD_LETTERS, patience=0.1):
        pass
    ledger.close()


def _body(letter: dict[str, Any]) -> bytes:
    text = letter["body"]
    return base64.b64decode(text) if letter["body_encoding"] == "base64" else text.encode()
