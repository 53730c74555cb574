"""Claimed tasks on their way through an agent that has no broker, no ledger and no pool."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from kombu.message import Message

from chiffon.agent.app import create_app
from chiffon.agent.commands import Finished
from chiffon.agent.delivery import Delivery
from chiffon.agent.hearing import Hearing
from chiffon.agent.reading import Reader
from chiffon.agent.receipts import Receipts
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.traffic import Traffic
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry

CLAIM = Claim(
    task_id="t-1", execution=1, request_id="r-1", trace_id="0" * 32, work_type="echo", queue="work_queue", priority=3,
    parameters={"input": 1}, arguments=[], canvas={}, fingerprint="", timeout=None, soft_timeout=None, max_retries=None,
    retries=0, crashes=0, give_backs=0, attempts=1, origin="http", queued_at=None, age=0.0,
)  # fmt: skip


class Channel:
    """Notes what the broker is told."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.told: list[str] = []

    def basic_ack(self, tag: Any, multiple: bool = False) -> None:
        self.told.append("acknowledged")

    def basic_reject(self, tag: Any, requeue: bool) -> None:
        assert not requeue
        self.told.append("dead-lettered")


class Books:
    """A clerk that writes nothing down until it is told to."""

    life = SimpleNamespace(incarnation=1)

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def tell(self, command: Any) -> None:
        self.commands.append(command)

    def finished(self) -> Finished:
        """The settlement that it was given."""
        [found] = [command for command in self.commands if isinstance(command, Finished)]
        return found


class Hand:
    """What an agent has in hand of its tasks. ``receipts``: of the channel that brought their messages."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.books = Books()
        self.receipts = Receipts(self.channel.basic_ack)
        self._app = create_app(Settings())
        self._traffic = Traffic(lambda: ("work_queue",), 1, 10.0)
        self._came = 0

    def request(self, claim: Claim = CLAIM) -> ClaimedRequest:
        """The request for a claimed task, by a message of its own."""
        self._came += 1
        message = Message(b"", channel=self.channel, delivery_tag=self._came)
        return ClaimedRequest(
            claim,
            Delivery(message, self._traffic, Hearing(), self.receipts, lambda: True, ()),
            clerk=self.books,  # type: ignore[arg-type]
            reader=Reader(registry, self._app.tasks, 1_000),
            task=self._app.tasks[claim.work_type],
            timeout=60.0,
            work_type=None,
            shown=("[]", "{}"),
            hostname="agent@test",
            eventer=None,
            app=self._app,
            connection_errors=(),
        )
