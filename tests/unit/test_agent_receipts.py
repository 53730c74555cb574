"""Acknowledgements are gathered, and none is said for a delivery that is not done."""

from __future__ import annotations

from hypothesis import given, settings
from hypothesis import strategies as st

from chiffon.agent.receipts import Receipts


class Broker:
    """Knows what is unacknowledged."""

    def __init__(self, *tags: int) -> None:
        self.unacknowledged = set(tags)
        self.frames = 0
        self.receipts = Receipts(self.ack)
        for tag in tags:
            self.receipts.came(tag)

    def ack(self, tag: int, multiple: bool) -> None:
        assert tag in self.unacknowledged, "RabbitMQ closes the channel over an unknown delivery tag"
        self.frames += 1
        self.unacknowledged -= {other for other in self.unacknowledged if other <= tag} if multiple else {tag}

    def reject(self, tag: int) -> None:
        self.receipts.answered(tag)
        self.unacknowledged.remove(tag)


def test_what_is_done_without_a_gap_takes_one_frame() -> None:
    broker = Broker(1, 2, 3, 4)
    for tag in (3, 1, 2):
        broker.receipts.done(tag)
    broker.receipts.flush()
    assert broker.unacknowledged == {4}
    assert broker.frames == 1


def test_what_is_done_behind_a_gap_is_said_alone() -> None:
    broker = Broker(1, 2, 3)
    broker.receipts.done(3)
    broker.receipts.flush()
    assert broker.unacknowledged == {1, 2}


def test_nothing_is_said_twice() -> None:
    broker = Broker(1, 2)
    broker.receipts.done(1)
    broker.receipts.flush()
    broker.receipts.done(1)
    broker.receipts.flush()
    assert broker.frames == 1
    assert len(broker.receipts) == 1


@settings(deadline=None)
@given(st.lists(st.tuples(st.integers(1, 8), st.sampled_from(["done", "reject", "flush"])), max_size=40))
def test_whatever_the_order_the_broker_hears_of_exactly_what_is_done(steps: list[tuple[int, str]]) -> None:
    broker = Broker(*range(1, 9))
    done: set[int] = set()
    rejected: set[int] = set()
    for tag, what in steps:
        if what == "flush":
            broker.receipts.flush()
        elif tag in done | rejected:
            continue
        elif what == "done":
            done.add(tag)
            broker.receipts.done(tag)
        else:
            rejected.add(tag)
            broker.reject(tag)
    broker.receipts.flush()
    assert broker.unacknowledged == set(range(1, 9)) - done - rejected
    assert len(broker.receipts) == len(broker.unacknowledged)
