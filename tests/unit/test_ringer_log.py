"""A doorbell that no queue takes is logged with the ids of its task."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import pytest

from chiffon.bus.confirms import Receipt
from chiffon.bus.letters import Letter
from chiffon.config import Settings
from chiffon.dispatch import ring
from chiffon.dispatch.ring import Ringer
from chiffon.domain.tasks import Ring
from tests.log_notes import LogNotes

BELL = Ring("t-1", 1, "order-7", "4b" * 16, "echo", "work_queue.gone", 3, {"input": 1}, [], {}, 0)


class Returning:
    """A publisher whose broker returns everything."""

    connected, blocked = True, False

    def publish(self, letters: Sequence[Letter], *, within: float) -> Receipt:
        """Have it all returned."""
        return Receipt(returned=frozenset(letter.message.message_id for letter in letters))


class Empty:
    """A ledger in which nothing is to be written down."""

    @contextmanager
    def transaction(self) -> Iterator[Any]:
        """One in which nothing may be executed."""
        yield None


def test_an_unroutable_doorbell_is_logged_with_its_tasks_ids(monkeypatch: pytest.MonkeyPatch) -> None:
    log = LogNotes()
    monkeypatch.setattr(ring, "log", log)
    Ringer(Settings(), Empty())._publish(Returning(), [BELL])  # type: ignore[arg-type]
    (line,) = log.said("unroutable")
    assert (line["queue"], line["task_id"]) == ("work_queue.gone", "t-1")
    assert (line["request_id"], line["trace_id"]) == ("order-7", "4b" * 16)
