"""Which messages must have been lost, by what an agent has seen of its queues."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta

from chiffon.agent.traffic import Traffic

RUNG = datetime(2026, 1, 1, tzinfo=UTC)
LOST_AFTER = 10.0


class Seen:
    """An agent with room for two messages, at a time that the test sets."""

    def __init__(self) -> None:
        self.now = 1000.0
        self.heard = 0.0
        self.traffic = Traffic(lambda: ("work_queue",), 2, LOST_AFTER, lambda: self.heard, lambda: self.now)
        self.traffic.connected()

    def passes(self, seconds: float, *, broker_answers: bool = True) -> None:
        """Time passes; the broker answers meanwhile, or it does not."""
        self.now += seconds
        if broker_answers:
            self.heard = self.now


def test_a_broker_that_had_room_for_long_and_brought_nothing_has_nothing() -> None:
    seen = Seen()
    seen.passes(LOST_AFTER)
    assert [(s.queue, s.priority) for s in seen.traffic.suspicions()] == [("work_queue", None)]


def test_a_broker_that_was_not_heard_may_have_anything() -> None:
    seen = Seen()
    seen.passes(5 * LOST_AFTER, broker_answers=False)
    assert seen.traffic.suspicions() == []


def test_nothing_is_suspected_before_its_time_nor_without_room() -> None:
    seen = Seen()
    seen.passes(LOST_AFTER - 1)
    assert seen.traffic.suspicions() == []
    seen.traffic.delivered()
    seen.traffic.delivered()
    assert not seen.traffic.has_room
    seen.passes(LOST_AFTER)
    assert seen.traffic.suspicions() == []


def test_a_wider_window_has_room_again() -> None:
    seen = Seen()
    for _ in range(2):
        seen.traffic.delivered()
    seen.traffic.make_room(4)
    seen.traffic.delivered()
    seen.traffic.done()
    seen.passes(LOST_AFTER)
    assert len(seen.traffic.suspicions()) == 1


def test_what_was_rung_before_one_that_was_claimed_long_ago_is_lost() -> None:
    seen = Seen()
    for _ in range(2):
        seen.traffic.delivered()
    seen.traffic.claimed("work_queue", 3, RUNG)
    seen.traffic.claimed("work_queue", 3, RUNG + timedelta(seconds=1))
    seen.passes(LOST_AFTER)
    assert [(s.priority, s.rung_before) for s in seen.traffic.suspicions()] == [(3, RUNG)]
    assert seen.traffic.suspicions() == []


def test_without_a_connection_nothing_is_known() -> None:
    seen = Seen()
    seen.traffic.disconnected()
    seen.passes(LOST_AFTER)
    assert seen.traffic.suspicions() == []
