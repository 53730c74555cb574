"""A message is acknowledged when the ledger has the end of its task, and not a moment sooner."""

from __future__ import annotations

import gc
import weakref
from types import SimpleNamespace

import pytest

from chiffon.agent.commands import Paid
from chiffon.agent.receipts import Receipts
from chiffon.agent.run import Report
from chiffon.domain.verdicts import Completed, Failed, Verdict, WorkError
from chiffon.ledger.settle import Fenced, Recorded
from tests.claimed import Books, Channel, claimed


class Run:
    """A claimed task whose run is over, as ``verdict`` says."""

    def __init__(self, verdict: Verdict) -> None:
        self.channel = Channel()
        self.books = Books()
        self.receipts = Receipts(self.channel.basic_ack)
        self.request = claimed(self.books, channel=self.channel, receipts=self.receipts)
        self.request.on_success(Report(verdict))

    def settled(self, answer: Recorded | Fenced) -> list[str]:
        """What the broker has been told once the ledger has answered so."""
        [finished] = self.books.settlements()
        finished.reply(answer)
        self.receipts.flush()
        return self.channel.told


def test_a_message_is_kept_until_the_end_is_written_down() -> None:
    run = Run(Completed("1"))
    run.receipts.flush()
    assert run.channel.told == []
    assert run.settled(Recorded("completed", owes_dead_letter=False, fresh=True)) == ["acknowledged"]


def test_a_task_s_own_wish_to_be_acknowledged_at_its_start_is_not_heeded() -> None:
    books, channel = Books(), Channel()
    receipts = Receipts(channel.basic_ack)
    request = claimed(books, channel=channel, receipts=receipts)
    request._task = SimpleNamespace(acks_late=False)
    request.on_accepted(4711, 0.0)
    receipts.flush()
    assert request.time_start is not None
    assert channel.told == []


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
    run.request.outcome.acknowledge_early()
    assert run.settled(Recorded("completed", owes_dead_letter=False, fresh=True)) == ["acknowledged"]
