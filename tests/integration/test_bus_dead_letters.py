"""Looking takes nothing and keeps the order; taking loses nothing, wherever it is interrupted."""

from __future__ import annotations

import multiprocessing
import os
import signal
from collections.abc import Iterator, Sequence
from typing import Any

import amqp
import pytest

from chiffon.bus.connect import Connection, connect
from chiffon.bus.dead_letters import Discard, Keep, Republished, Taken, Verdict, look, take
from chiffon.bus.letters import Letter, Message
from chiffon.bus.postmortem import DeadLetter
from chiffon.bus.publisher import Publisher
from chiffon.bus.topology import DLX_EXCHANGE, WORK_EXCHANGE, Topology
from chiffon.domain.errors import LetterGone
from tests.bells import bare_channel, bell, dead_letter
from tests.racing import until


@pytest.fixture(params=["classic", "quorum"])
def topology(request: pytest.FixtureRequest) -> Topology:
    return Topology(request.param)


@pytest.fixture
def publisher(broker_url: str, topology: Topology) -> Iterator[Publisher]:
    with Publisher(broker_url, topology) as made:
        yield made


@pytest.fixture
def connection(broker_url: str, topology: Topology) -> Iterator[Connection]:
    with connect(broker_url, name="test") as opened:
        topology.declare(opened)
        yield opened


@pytest.fixture
def client(broker_url: str) -> Iterator[Any]:
    with bare_channel(broker_url) as channel:
        yield channel


def foreign(count: int, *, priorities: Sequence[int] = (3,)) -> list[Letter]:
    """Letters that somebody else had in `dlx_queue`, of the doorbells' priority or of these in turn."""
    return [
        Letter(
            DLX_EXCHANGE,
            "work_queue",
            Message(f"m{n:04}", b"%d" % n, {}, {"delivery_mode": 2, "priority": priorities[n % len(priorities)]}),
        )
        for n in range(count)
    ]


def seen(connection: Connection, **options: Any) -> Sequence[DeadLetter]:
    """The first page of what lies there."""
    return look(connection, **options).letters


def pages(connection: Connection, **options: Any) -> list[list[bytes]]:
    """The bodies, page by page."""
    turned: list[list[bytes]] = []
    after = None
    while after or not turned:
        page = look(connection, after=after, **options)
        turned.append(bodies(page.letters))
        after = page.next_after
    return turned


def bodies(letters: Sequence[DeadLetter]) -> list[bytes]:
    return [letter.body for letter in letters]


def again(letter: DeadLetter) -> Verdict:
    return Republished.of(letter.again())


def everything(letter: DeadLetter) -> bool:
    return True


def drain(client: Any, queue: str) -> list[Any]:
    found = []
    while message := client.basic_get(queue, no_ack=True):
        found.append(message)
    return found


def test_looking_again_and_again_shows_the_same_and_takes_nothing(
    publisher: Publisher, connection: Connection, client: Any
) -> None:
    sent = foreign(150)
    assert len(publisher.publish(sent).confirmed) == 150
    first = seen(connection)
    assert bodies(first) == [letter.message.body for letter in sent]
    for _ in range(6):  # a delivery limit, or the order of one look, would show by now
        assert [letter.id for letter in seen(connection)] == [letter.id for letter in first]
    came = drain(client, "dlx_queue")
    assert [message.body for message in came] == [letter.message.body for letter in sent]


def test_a_look_at_the_first_few_keeps_the_order_too(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(20))
    first = [letter.id for letter in seen(connection)]
    look(connection, limit=5)
    publisher.publish(foreign(1))
    look(connection, limit=5)
    assert [letter.id for letter in seen(connection)][:20] == first


def test_pages_are_whole_and_in_order_where_the_broker_puts_urgent_letters_first(
    publisher: Publisher, connection: Connection
) -> None:
    publisher.publish(foreign(12, priorities=[1, 5, 3]))
    first = bodies(seen(connection))
    assert sorted(first, key=int) == [b"%d" % n for n in range(12)]
    assert [int(body) for body in first if int(body) % 3 == 1] == [1, 4, 7, 10]
    for limit in (1, 5, 3, 7):
        assert [body for page in pages(connection, limit=limit) for body in page] == first


def test_a_look_is_bounded_in_letters_and_in_bytes(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(20))
    assert bodies(seen(connection, limit=3)) == [b"0", b"1", b"2"]
    assert bodies(seen(connection, max_bytes=2)) == [b"0", b"1"]
    assert len(seen(connection)) == 20


def test_pages_show_each_letter_once_and_say_whether_there_are_more(
    publisher: Publisher, connection: Connection
) -> None:
    publisher.publish(foreign(7))
    assert pages(connection, limit=3) == [[b"0", b"1", b"2"], [b"3", b"4", b"5"], [b"6"]]
    assert pages(connection, limit=7) == [[b"%d" % n for n in range(7)]]
    assert pages(connection, max_bytes=4) == [[b"0", b"1", b"2", b"3"], [b"4", b"5", b"6"]]
    assert pages(connection, max_bytes=0) == [[b"%d" % n] for n in range(7)]


def test_what_is_wanted_is_found_behind_whatever_is_not(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(30))
    tens = {"wanted": lambda letter: letter.body.endswith(b"0")}
    assert pages(connection, limit=2, max_bytes=4, **tens) == [[b"0", b"10"], [b"20"]]
    assert pages(connection, limit=3, **tens) == [[b"0", b"10", b"20"]]


def test_a_copy_behind_the_page_s_end_does_not_come_again(publisher: Publisher, connection: Connection) -> None:
    copies = [dead_letter(bell(ring_no=n), f"why {n}") for n in range(3)]
    for letters in (copies[:2], foreign(1), copies[2:]):
        publisher.publish(letters)
    first = look(connection, limit=1)
    assert [(letter.task_id, letter.copies) for letter in first.letters] == [("task-0", 2)]
    second = look(connection, after=first.next_after, limit=1)
    assert (bodies(second.letters), second.next_after) == ([b"0"], None)
    last = look(connection, lambda letter: letter.reason == "why 2", limit=1)
    assert ([letter.task_id for letter in last.letters], last.next_after) == (["task-0"], None)


def test_no_page_begins_behind_a_letter_that_is_gone(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(4))
    after = look(connection, limit=2).next_after
    assert after is not None
    take(connection, [after], lambda _: Discard())
    with pytest.raises(LetterGone):
        look(connection, after=after)
    assert len(seen(connection)) == 3


def test_a_rejected_message_is_shown_with_all_it_was(publisher: Publisher, connection: Connection, client: Any) -> None:
    message = amqp.Message(b"\xff\xfenot json", application_headers={"task": "x"}, content_type="a/b", delivery_mode=2)
    client.basic_publish(message, exchange="work", routing_key="work_queue")
    client.basic_reject(client.basic_get("work_queue").delivery_tag, requeue=False)
    (letter,) = until(lambda: seen(connection))
    assert (letter.body, letter.queue, letter.reason) == (b"\xff\xfenot json", "work_queue", "rejected")
    assert letter.headers["task"] == "x"
    assert letter.properties["content_type"] == "a/b"
    assert letter.died_at is not None
    assert letter.died_at == letter.first_death_at


def test_a_task_that_died_by_several_letters_is_shown_and_decided_once(
    publisher: Publisher, connection: Connection, client: Any
) -> None:
    publisher.publish([dead_letter(bell(ring_no=n), "why") for n in range(3)] + foreign(1))
    task, other = sorted(seen(connection), key=lambda letter: not letter.doorbell)
    assert (task.task_id, task.copies, other.copies) == ("task-0", 3, 1)
    asked: list[str] = []

    def decide(letter: DeadLetter) -> Verdict:
        asked.append(letter.id)
        return Discard()

    assert take(connection, [task.id], decide) == Taken(discarded=1)
    assert asked == [task.id]
    assert [letter.id for letter in seen(connection)] == [other.id]


def test_each_verdict_is_carried_out_and_the_rest_stays_in_order(
    publisher: Publisher, connection: Connection, client: Any
) -> None:
    publisher.publish(foreign(40))
    chosen = {letter.id: letter for letter in seen(connection) if int(letter.body) % 2}

    def decide(letter: DeadLetter) -> Verdict:
        return (Keep(), again(letter), Discard())[int(letter.body) % 3]

    taken = take(connection, chosen, decide)
    assert taken == Taken(discarded=6, republished=7, kept=7)
    assert sorted(int(message.body) for message in drain(client, "work_queue")) == [1, 7, 13, 19, 25, 31, 37]
    assert [int(body) for body in bodies(seen(connection))] == [n for n in range(40) if not n % 2 or not n % 3]


def test_many_are_published_again_in_one_go(publisher: Publisher, connection: Connection, client: Any) -> None:
    publisher.publish(foreign(350))
    assert take(connection, everything, again) == Taken(republished=350)
    assert {message.properties["message_id"] for message in drain(client, "work_queue")} == {
        letter.message.message_id for letter in foreign(350)
    }
    assert seen(connection) == []


def test_a_mended_one_is_published_mended(publisher: Publisher, connection: Connection, client: Any) -> None:
    publisher.publish(foreign(1))
    take(connection, everything, lambda letter: Republished.of(letter.again(b'{"mended": true}')))
    (message,) = drain(client, "work_queue")
    assert message.body == b'{"mended": true}'
    assert message.properties["content_type"] == "application/json"


@pytest.mark.parametrize(
    ("exchange", "why"), [(WORK_EXCHANGE, "no queue takes it"), ("not-there", "no exchange 'not-there'")]
)
def test_a_letter_whose_successor_is_not_taken_stays_and_delays_no_neighbour(
    publisher: Publisher, connection: Connection, client: Any, exchange: str, why: str
) -> None:
    publisher.publish(foreign(9))

    def decide(letter: DeadLetter) -> Verdict:
        return Republished(exchange, "nobody-listens", letter.again().message) if letter.body == b"4" else again(letter)

    taken = take(connection, everything, decide)
    assert (taken.republished, taken.unconfirmed) == (8, 1)
    assert why in taken.why
    assert bodies(seen(connection)) == [b"4"]
    published = {message.properties["message_id"] for message in drain(client, "work_queue")}
    assert published == {f"m{n:04}" for n in range(9) if n != 4}


def test_what_a_handler_raises_gives_back_what_is_undecided(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(10))

    def decide(letter: DeadLetter) -> Verdict:
        if letter.body == b"5":
            raise RuntimeError("the ledger is away")
        return Discard()

    with pytest.raises(RuntimeError, match="the ledger is away"):
        take(connection, everything, decide)
    assert [int(body) for body in bodies(seen(connection))] == [5, 6, 7, 8, 9]


def test_a_letter_that_dies_again_meanwhile_is_not_taken_twice(publisher: Publisher, connection: Connection) -> None:
    publisher.publish(foreign(5))
    back = take(
        connection, everything, lambda letter: Republished(DLX_EXCHANGE, letter.routing_key, letter.again().message)
    )
    assert back == Taken(republished=5)
    assert len(seen(connection)) == 5


def replay_and_die(url: str) -> None:
    """What a process does that is killed in the middle of a replay."""

    def decide(letter: DeadLetter) -> Verdict:
        if letter.body == b"180":
            os.kill(os.getpid(), signal.SIGKILL)
        return again(letter)

    take(connect(url, name="doomed"), everything, decide)


def test_a_process_that_is_killed_in_the_middle_loses_none(
    publisher: Publisher, connection: Connection, client: Any, broker_url: str
) -> None:
    publisher.publish(foreign(250))
    doomed = multiprocessing.get_context("spawn").Process(target=replay_and_die, args=(broker_url,))
    doomed.start()
    doomed.join()
    assert doomed.exitcode == -signal.SIGKILL

    def given_back() -> set[str]:
        found = {str(letter.properties["message_id"]) for letter in seen(connection)}
        return found if len(found) >= 150 else set()

    kept = until(given_back)  # the broker sees the death of the process a moment later
    replayed = {message.properties["message_id"] for message in drain(client, "work_queue")}
    assert replayed
    assert kept | replayed == {letter.message.message_id for letter in foreign(250)}
