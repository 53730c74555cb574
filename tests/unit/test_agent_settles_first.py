"""A message is acknowledged when the ledger has the end of its task, and not a moment sooner."""

from __future__ import annotations

import gc
import weakref
from typing import Any

import pytest
from kombu.message import Message

from chiffon.agent.app import create_app
from chiffon.agent.commands import Finished, Paid
from chiffon.agent.delivery import Delivery
from chiffon.agent.hearing import Hearing
from chiffon.agent.reading import Reader
from chiffon.agent.receipts import Receipts
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.run import Report
from chiffon.agent.traffic import Traffic
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed, Failed, Verdict, WorkError
from chiffon.domain.work import registry
from chiffon.ledger.settle import Fenced, Recorded

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

    def __init__(self) -> None:
        self.commands: list[Any] = []

    def tell(self, command: Any) -> None:
        self.commands.append(command)

    def finished(self) -> Finished:
        """The settlement that it was given."""
        [found] = [command for command in self.commands if isinstance(command, Finished)]
        return found


class Run:
    """A claimed task whose run is over, as ``verdict`` says."""

    def __init__(self, verdict: Verdict) -> None:
        self.channel = Channel()
        self.books = Books()
        self.receipts = Receipts(self.channel.basic_ack)
        app = create_app(Settings())
        message = Message(b"", channel=self.channel, delivery_tag=1)
        self.request = ClaimedRequest(
            CLAIM,
            Delivery(message, Traffic(lambda: ("work_queue",), 1, 10.0), Hearing(), self.receipts, lambda: True, ()),
            clerk=self.books,  # type: ignore[arg-type]
            reader=Reader(registry, app.tasks, 1_000),
            task=app.tasks["echo"],
            timeout=60.0,
            work_type=None,
            shown=("[]", "{}"),
            hostname="agent@test",
            eventer=None,
            app=app,
            connection_errors=(),
        )
        self.request.on_success(Report(verdict))

    def settled(self, answer: Recorded | Fenced) -> list[str]:
        """What the broker has been told once the ledger has answered so."""
        self.books.finished().reply(answer)
        self.receipts.flush()
        return self.channel.told


def test_a_message_is_kept_until_the_end_is_written_down() -> None:
    run = Run(Completed("1"))
    run.receipts.flush()
    assert run.channel.told == []
    assert run.settled(Recorded("completed", owes_dead_letter=False, fresh=True)) == ["acknowledged"]


def test_a_failure_is_dead_lettered_after_its_end_is_written_down() -> None:
    run = Run(Failed(WorkError("Fail", "no")))
    run.receipts.flush()
    assert run.channel.told == []
    assert run.settled(Recorded("failed", owes_dead_letter=True, fresh=True)) == ["dead-lettered"]
    assert any(isinstance(command, Paid) for command in run.books.commands)


def test_of_a_run_that_is_settled_nothing_is_left_for_the_garbage_collector() -> None:
    run = Run(Completed("1"))
    run.settled(Recorded("completed", owes_dead_letter=False, fresh=True))
    run.books.commands.clear()  # a clerk forgets what it has answered
    request = weakref.ref(run.request)
    gc.disable()
    try:
        del run
        assert request() is None
    finally:
        gc.enable()


def test_a_message_of_a_run_that_was_fenced_off_is_only_a_doorbell() -> None:
    assert Run(Completed("1")).settled(Fenced()) == ["acknowledged"]


@pytest.mark.parametrize("verdict", [Completed("1"), Failed(WorkError("Fail", "no"))], ids=["completed", "failed"])
def test_a_message_that_was_answered_early_is_not_answered_again(verdict: Verdict) -> None:
    run = Run(verdict)
    run.request.acknowledge()
    assert run.settled(Recorded("completed", owes_dead_letter=False, fresh=True)) == ["acknowledged"]


def test_a_dead_letter_whose_message_was_answered_early_stays_owed() -> None:
    run = Run(Failed(WorkError("Fail", "no")))
    run.request.acknowledge()
    assert run.settled(Recorded("failed", owes_dead_letter=True, fresh=True)) == ["acknowledged"]
    assert not any(isinstance(command, Paid) for command in run.books.commands)
