"""What sees to the ends of others has a time limit of its own, and is run again when it has reached it."""

from __future__ import annotations

from types import SimpleNamespace

import pytest
from kombu.message import Message

from chiffon.agent.app import create_app
from chiffon.agent.delivery import Delivery
from chiffon.agent.hearing import Hearing
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Reader
from chiffon.agent.receipts import Receipts
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.runs import Runs
from chiffon.agent.traffic import Traffic
from chiffon.config import Settings
from chiffon.domain.verdicts import GivenBack, TimedOut
from chiffon.domain.work import registry
from chiffon.ledger.effects import AFTER_END, RELEASE_CHORD
from tests.unit.test_agent_settles_first import CLAIM, Books, Channel

DEFAULT = 30.0
"""Seconds that the user lets work run."""


def delivered(channel: Channel) -> Delivery:
    """A message in hand."""
    traffic, receipts = Traffic(lambda: ("work_queue",), 1, 10.0), Receipts(channel.basic_ack)
    return Delivery(Message(b"", channel=channel, delivery_tag=1), traffic, Hearing(), receipts, lambda: True, ())


def runs_of(books: Books) -> Runs:
    """What an agent has in hand whose user wants no work to take long."""
    app = create_app(Settings(default_timeout=DEFAULT))
    app.conf.update(task_time_limit=DEFAULT, task_soft_time_limit=DEFAULT / 2)
    consumer = SimpleNamespace(app=app, hostname="agent@test", event_dispatcher=None, connection_errors=())
    pace = Pace(app.settings.work_ahead)
    line = Line(lambda request: None, pace, None, lambda: 1)
    reader = Reader(registry, app.tasks, 1_000)
    return Runs(consumer, app.settings, books, reader, pace, line, 1)  # type: ignore[arg-type]


def claimed(work_type: str, books: Books) -> ClaimedRequest:
    """A claimed task on its way to the pool."""
    return runs_of(books)._request(delivered(Channel()), CLAIM._replace(work_type=work_type))


@pytest.mark.parametrize("work_type", [AFTER_END, RELEASE_CHORD])
def test_it_may_wait_for_the_ledger_for_longer_than_work_may_run(work_type: str) -> None:
    request = claimed(work_type, Books())
    assert request.limit > 10 * DEFAULT
    assert request.soft_limit is None


@pytest.mark.parametrize("work_type", [AFTER_END, RELEASE_CHORD])
def test_when_its_time_is_over_it_is_given_back(work_type: str) -> None:
    books = Books()
    claimed(work_type, books).time_out()
    verdict = books.finished().settlement.verdict
    assert isinstance(verdict, GivenBack)
    assert verdict.started


def test_other_work_has_ended_when_its_time_is_over() -> None:
    books = Books()
    claimed("echo", books).time_out()
    assert isinstance(books.finished().settlement.verdict, TimedOut)
