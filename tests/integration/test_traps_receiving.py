"""Messages that stock Celery loses, or that end its workers; Chiffon dead-letters them and works on."""

from __future__ import annotations

import json
import uuid
import zlib
from typing import Any

from chiffon.devstack.process import Process
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.messages import AS_JSON, Bad
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import always, eventually
from tests.traps import DEEDS
from tests.traps.stock import Stock
from tests.traps.stock_app import DEAD, QUEUE

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")


def celery(what: str, body: Any = ([], {"input": 1}, None), **headers: Any) -> Bad:
    """A message of Celery's protocol 2 with one thing wrong; a header that is None is not there."""
    complete = {"task": "trap.sign", "id": str(uuid.uuid4()), "lang": "py", "root_id": "root"} | headers
    return Bad(what, json.dumps(body).encode(), headers={k: v for k, v in complete.items() if v is not None})


UNDECODABLE = [
    Bad("no JSON", b"{not json", headers={"task": "trap.sign", "id": "1"}),
    Bad("no UTF-8", b'[[], {"path": "\xff\xfe"}, null]', headers={"task": "trap.sign", "id": "2"}),
    Bad(
        "an unknown compression",
        zlib.compress(b"[[], {}, null]"),
        headers={"task": "trap.sign", "id": "3", "compression": "application/x-none-such"},
    ),
]
ENDING = [
    celery("no id", id=None),
    celery("a body that is no list of three", {"a": 1}),
    celery("an unhashable task", task={"a": 1}),
    celery("a time limit that is a number", timelimit=7),
    celery("stamped headers that are a number", stamped_headers=7),
]


def is_in_dead_letters(client: RawAmqp, bad: list[Bad]) -> bool:
    """Whether these, and nothing else, are in `dlx_queue`."""
    return sorted(letter.body for letter in client.look("dlx_queue")) == sorted(message.body for message in bad)


def complaints(worker: Process, of: str) -> int:
    """How often a worker's log has that."""
    return worker.log.read_text(errors="replace").count(of)


def test_what_cannot_be_decoded_is_gone_with_stock_celery_and_a_dead_letter_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agent = agents.launch(**DEEDS)
    worker = stock.start()
    for message in UNDECODABLE:
        amqp_client.publish(message.body, headers=message.headers, exchange=QUEUE, routing_key=QUEUE, **AS_JSON)
    agent.ready()
    for message in UNDECODABLE:
        message.publish(amqp_client)

    eventually("the stock worker to complain of each", lambda: complaints(worker, "Can't decode message body") == 3)
    assert stock.lost(worker), "its queue has a dead letter exchange, and nothing went there"
    eventually("the dead letters", lambda: is_in_dead_letters(amqp_client, UNDECODABLE))
    assert desk.wait_for(desk.place("echo", {"input": "still here"}), "completed")
    assert agent.container.status == "running"


def test_a_message_that_ends_every_stock_worker_it_meets_ends_no_agent(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    agent = agents.launch(**DEEDS)
    queues = {f"ending.{number}": message for number, message in enumerate(ENDING)}
    for queue, message in queues.items():
        with amqp_client.channel() as channel:
            channel.queue_declare(queue, durable=True, auto_delete=False)
        amqp_client.publish(message.body, headers=message.headers, exchange="", routing_key=queue, **AS_JSON)

    workers = {queue: stock.launch("-Q", queue) for queue in queues}
    for queue, worker in workers.items():
        eventually(f"{queues[queue].what} to end the worker", lambda worker=worker: not worker.is_running())
        assert amqp_client.ready(queue) == 1, "and there it is again, for the next one"
    following = stock.launch("-Q", "ending.0")
    eventually("it to end the next one", lambda: not following.is_running())

    agent.ready()
    for message in ENDING:
        message.publish(amqp_client)
    eventually("the dead letters", lambda: is_in_dead_letters(amqp_client, ENDING))
    assert desk.wait_for(desk.place("echo", {"input": "still here"}), "completed")
    assert agent.container.status == "running"


def test_a_blanket_except_keeps_a_stock_worker_up_and_stops_its_work_and_chiffon_loses_no_slot(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp, stock_diary: Diary
) -> None:
    agent = agents.launch(concurrency=1, **DEEDS)
    worker = stock.start(worker_consumer="tests.traps.blanket:BlanketConsumer")
    bad = celery("a time limit that is a number", body=([], {"path": "/dev/null"}, None), timelimit=7)
    amqp_client.publish(bad.body, headers=bad.headers, exchange=QUEUE, routing_key=QUEUE, **AS_JSON)
    agent.ready()
    for _ in range(3):
        bad.publish(amqp_client)

    eventually("the stock worker to reject it", lambda: amqp_client.ready(DEAD) == 1)
    never = stock.send("trap.sign", path=str(stock_diary.path))
    eventually("it to take the next", lambda: amqp_client.ready(QUEUE) == 0)
    assert desk.wait_for(desk.place("echo", {"input": "still here"}), "completed")
    always("the stock worker's doing nothing", lambda: not stock_diary.entries(never), during=3)
    assert worker.is_running(), "and to whoever looks it is well"
    eventually("the dead letters", lambda: is_in_dead_letters(amqp_client, [bad] * 3))


def test_broken_callbacks_take_a_message_along_with_stock_celery_and_are_a_dead_letter_with_chiffon(
    stock: Stock, agents: Agents, desk: Desk, amqp_client: RawAmqp
) -> None:
    broken = celery("callbacks that are none", [[], {"path": "/dev/null"}, {"callbacks": 7}])
    agent = agents.launch(**DEEDS)
    worker = stock.start()
    amqp_client.publish(broken.body, headers=broken.headers, exchange=QUEUE, routing_key=QUEUE, **AS_JSON)
    agent.ready()
    broken.publish(amqp_client)

    eventually("the stock worker to complain", lambda: complaints(worker, "Traceback"))
    assert stock.lost(worker)
    eventually("the dead letter", lambda: is_in_dead_letters(amqp_client, [broken]))
    assert agent.container.status == "running"
