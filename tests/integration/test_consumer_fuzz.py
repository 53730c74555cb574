"""Ten thousand messages at one agent: each is accounted for, and the agent is as it was before."""

from __future__ import annotations

import contextlib
import os
import random
import re
import uuid
from collections import Counter
from collections.abc import Iterable, Iterator, Sequence
from typing import Any

import amqp
import kombu
import psutil
import pytest

from chiffon.bus.frames import frame_handler
from chiffon.bus.letters import DOORBELL
from tests.bells import RawProperties
from tests.desk import Desk
from tests.e2e.agents import Agents
from tests.e2e.diary import Diary
from tests.e2e.http_client import ENDS
from tests.e2e.ledger_reader import LedgerReader
from tests.e2e.raw_amqp import RawAmqp
from tests.e2e.waiting import eventually
from tests.noise import Noise, Source
from tests.traps import DEEDS

pytest_plugins = ("tests.e2e.fixtures", "tests.traps.fixtures")

MESSAGES = 10_000
SLOTS = 4
MEGABYTE = 1 << 20
MARK = re.compile(r"mark-\d{6}\.")


@pytest.fixture
def seed() -> int:
    """A fresh one, which is printed; `CHIFFON_TEST_SEED` repeats it."""
    chosen = int(os.environ.get("CHIFFON_TEST_SEED") or random.SystemRandom().randrange(2**32))
    print(f"CHIFFON_TEST_SEED={chosen}")
    return chosen


def publish(url: str, messages: Iterable[Noise]) -> None:
    """Publish all without waiting for each; the broker has them when the connection is closed."""
    with kombu.Connection(url) as connection:
        for noise in messages:
            if isinstance(noise.properties, bytes):
                message: Any = RawProperties(noise.body, noise.properties)
            else:
                message = amqp.Message(noise.body, application_headers=noise.headers, **noise.properties)
            connection.default_channel.basic_publish(message, "work", "work_queue")


def drain(url: str) -> Iterator[tuple[bytes, str]]:
    """Take what is in `dlx_queue`: the bodies, each with RabbitMQ's word for why it is there."""
    with kombu.Connection(url, transport_options={"frame_handler": frame_handler}) as connection:
        channel = connection.default_channel
        channel.auto_decode = False
        while (message := channel.basic_get("dlx_queue", no_ack=True)) is not None:
            body = message.body.encode() if isinstance(message.body, str) else bytes(message.body)
            yield body, message.headers["x-death"][0]["reason"]


class Account:
    """What has become of the messages that were sent."""

    def __init__(self, sent: Sequence[Noise], reader: LedgerReader, broker_url: str) -> None:
        self._sent = sent
        self._reader = reader
        self._url = broker_url
        self._names = Counter(name for noise in sent if not noise.again for name in noise.named)
        self.dead: dict[bytes, str] = {}

    def missing(self) -> list[Noise]:
        """The messages of which there is no trace."""
        self.dead.update(drain(self._url))
        rows = self._reader.rows("SELECT task_id, arguments::text || parameters::text AS said FROM tasks")
        marks = {mark for row in rows for mark in MARK.findall(row["said"])}
        known = {row["task_id"] for row in rows}
        traced = (m.body in self.dead or m.mark in marks or self._is_traced_by_name(m, known) for m in self._sent)
        return [noise for noise, is_there in zip(self._sent, traced, strict=True) if not is_there]

    def _is_traced_by_name(self, noise: Noise, known: set[str]) -> bool:
        """Whether it made a task under an id that no other message has; or was about one that another had made.

        That is what a doorbell is for, and a repetition; or the dice have said one word twice where an id stands.
        """
        names = noise.named.keys() & known
        is_about_another = noise.again or DOORBELL in noise.headers
        return bool(names) and (
            is_about_another or any(self._names[n] == 1 or not is_uuid(noise.named[n]) for n in names)
        )

    def wrongly_dead(self) -> list[tuple[str, Noise]]:
        """The messages that are in `dlx_queue` for another reason than that the agent, or their own time, said so."""
        found = [(self.dead.get(noise.body, ""), noise) for noise in self._sent]
        return [(reason, noise) for reason, noise in found if reason not in {"", "rejected", _end_of(noise)}]


def _end_of(noise: Noise) -> str:
    """How RabbitMQ itself may end a message."""
    return "expired" if isinstance(noise.properties, dict) and "expiration" in noise.properties else ""


def is_uuid(name: str) -> bool:
    """Whether it is an id that nobody says twice by chance."""
    try:
        return str(uuid.UUID(name)) == name
    except ValueError:
        return False


def peak(pid: int) -> int:
    """The most memory that a process has had, in bytes."""
    with open(f"/proc/{pid}/status") as status:
        return next(int(line.split()[1]) * 1024 for line in status if line.startswith("VmHWM"))


@pytest.mark.timeout(240)
def test_whatever_arrives_is_done_or_dead_lettered_and_the_agent_goes_on(
    seed: int, agents: Agents, desk: Desk, diary: Diary, amqp_client: RawAmqp
) -> None:
    agent = agents.start(concurrency=SLOTS, **DEEDS)
    desk.wait_for(desk.place("echo", {"input": "warm"}), "completed")
    before = psutil.Process(agent.container.pid).memory_info().rss
    sent = list(Source(seed).messages(MESSAGES))
    publish(amqp_client.url, sent)
    placed = desk.place_all("echo", [{"input": f"placed {number}"} for number in range(300)])

    account = Account(sent, desk.reader, amqp_client.url)
    eventually("the queue to be empty", lambda: amqp_client.ready("work_queue") == 0, within=150)
    with contextlib.suppress(AssertionError):
        eventually("every message to be accounted for", lambda: not account.missing(), within=10)
    assert account.missing()[:3] == []
    assert account.wrongly_dead()[:3] == []
    eventually("all that became a task to have its end", lambda: set(desk.reader.statuses()) <= ENDS)

    good = {noise.mark for noise in sent if noise.good}
    done = (
        "SELECT parameters ->> 'input' AS mark FROM tasks JOIN executions USING (task_id) WHERE outcome = 'completed'"
    )
    eventually("all good work to be done", lambda: good <= {row["mark"] for row in desk.reader.rows(done)})
    marks = [row["mark"] for row in desk.reader.rows(done) if row["mark"] in good]
    assert len(marks) == len(good), "and to be done once"
    for task_id in placed:
        desk.wait_for(task_id, "completed")

    assert agent.container.status == "running"
    assert agent.logs().count(" ready.") == 1, "no connection was lost over it"
    assert peak(agent.container.pid) - before < 200 * MEGABYTE
    for task_id in desk.place_all("trap.sign", [{"path": str(diary.path), "seconds": 3}] * SLOTS):
        desk.wait_for(task_id, "completed")
    assert diary.notes() == ["began"] * SLOTS + ["done"] * SLOTS, "every slot of the pool is there"
