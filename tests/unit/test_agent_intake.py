"""What an agent takes in hand, and what it tells the broker of it."""

from __future__ import annotations

from types import SimpleNamespace
from typing import Any

from chiffon.agent.hearing import Hearing
from chiffon.agent.intake import Intake
from chiffon.agent.pace import SEEN, Pace
from chiffon.agent.reading import Doorbell
from chiffon.agent.traffic import Traffic


class Channel:
    """Notes what the broker is told."""

    no_ack_consumers = None

    def __init__(self) -> None:
        self.told: list[tuple[Any, ...]] = []
        self._pending: dict[Any, Any] = {}

    def basic_ack(self, tag: int, multiple: bool) -> None:
        self.told.append(("ack", tag, multiple))

    def basic_reject(self, tag: int, requeue: bool) -> None:
        self.told.append(("reject", tag, requeue))

    def send_method(self, method: Any, signature: str, arguments: tuple[Any, ...]) -> None:
        if len(arguments) == 3:
            self.told.append(("prefetch", arguments[1]))


ACK_AFTER = 600.0


class Broker:
    """The side of the broker, for an agent with two slots that holds work for 20 ms."""

    def __init__(self) -> None:
        self.channel = Channel()
        self.pace = Pace(0.02)
        consumer = SimpleNamespace(
            connection_errors=(OSError,), task_consumer=SimpleNamespace(channel=self.channel), qos_global=True,
            qos=SimpleNamespace(value=2, prev=2),
        )  # fmt: skip
        traffic = Traffic(lambda: ("work_queue",), 2, 10.0)
        self.intake = Intake(consumer, 2, self.pace, traffic, Hearing(), ack_after=ACK_AFTER)
        self.intake.connected()

    def brings(self, tag: int, work_type: str = "a", priority: int = 3, ago: float = 0.0) -> None:
        """Hand out a message, or have handed it out so many seconds ago."""
        message = SimpleNamespace(
            delivery_tag=tag,
            properties={"priority": priority},
            reject_log_error=lambda log, errors, requeue: self.channel.basic_reject(tag, requeue),
        )
        delivery = self.intake.take(message)
        delivery.came_at -= ago
        self.intake.wait(delivery, Doorbell(f"task {tag}", work_type))

    def admitted(self) -> list[str]:
        """The tasks that get a slot now."""
        return [what.task_id for _, what in self.intake.admit() if isinstance(what, Doorbell)]

    def knows_to_be_short(self, work_type: str) -> None:
        for _ in range(SEEN):
            self.pace.ended(work_type, 0.001)


def test_of_what_may_run_for_long_there_is_one_for_each_slot_the_most_urgent_first() -> None:
    broker = Broker()
    for tag, priority in enumerate((1, 3, 5, 2), start=1):
        broker.brings(tag, priority=priority)
    assert broker.admitted() == ["task 3", "task 2"]
    assert broker.admitted() == []


def test_of_what_is_short_there_is_as_much_as_keeps_the_slots_busy() -> None:
    broker = Broker()
    broker.knows_to_be_short("a")
    for tag in range(100):
        broker.brings(tag)
    assert len(broker.admitted()) == 40, "two slots of 20 ms, a millisecond each"


def test_what_has_left_makes_room() -> None:
    broker = Broker()
    for tag in range(3):
        broker.brings(tag)
    first, *_ = [delivery for delivery, _ in broker.intake.admit()]
    broker.intake.leave(first)
    assert broker.admitted() == ["task 2"]


def test_the_window_grows_with_short_work_and_what_is_too_much_goes_back_when_it_is_not_short_any_more() -> None:
    broker = Broker()
    broker.knows_to_be_short("a")
    for tag in range(1, 3):
        broker.brings(tag)
    broker.intake.look([])
    assert ("prefetch", 40) in broker.channel.told
    for tag in range(3, 41):
        broker.brings(tag)
    broker.pace.lasts("a", 10.0)
    broker.intake.look([])
    assert ("prefetch", 2) in broker.channel.told
    put_back = [tag for what, tag, *_ in broker.channel.told if what == "reject"]
    assert sorted(put_back) == list(range(3, 41)), "the latest go back, to their old places"


def test_a_new_connection_hears_nothing_of_what_an_old_one_brought() -> None:
    broker = Broker()
    broker.brings(1)
    ((delivery, _),) = broker.intake.admit()
    broker.intake.disconnected()
    delivery.acknowledge()
    broker.intake.flush()
    assert broker.channel.told == []


def test_what_was_done_and_not_said_when_the_connection_went_is_not_said_on_the_next() -> None:
    broker = Broker()
    broker.brings(1)
    ((delivery, _),) = broker.intake.admit()
    delivery.acknowledge()
    broker.intake.disconnected()
    broker.intake.flush()
    assert broker.channel.told == []


def test_what_has_waited_for_too_long_goes_back_to_come_anew_however_urgent_and_nothing_else_does() -> None:
    broker = Broker()
    broker.brings(1, priority=5, ago=ACK_AFTER)
    broker.brings(2, ago=ACK_AFTER / 2)
    broker.intake.look([])
    broker.intake.look([])
    assert broker.channel.told == [("reject", 1, True)], "no more are in hand than there is room for: only age counts"
    assert broker.admitted() == ["task 2"]


def test_what_waits_when_an_agent_ends_goes_back_and_what_is_in_hand_does_not() -> None:
    broker = Broker()
    for tag in range(1, 5):
        broker.brings(tag)
    assert broker.admitted() == ["task 1", "task 2"]
    broker.intake.put_back_waiting()
    assert sorted(broker.channel.told) == [("reject", 3, True), ("reject", 4, True)]
    assert broker.admitted() == []
