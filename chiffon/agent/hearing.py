"""What the broker has certainly heard: it answers a channel in order, so an answer proves all that was said before.

A reject has no answer of its own, and a connection on which nobody listens any more looks well for a while.
"""

from __future__ import annotations

import math
import time
from collections.abc import Callable
from typing import Any

from amqp import spec


class Hearing:
    """Asks for an answer when somebody wants to know, and goes on. Used by the event loop, read by any thread."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._wanted = -math.inf
        self._heard = 0.0
        self._asked: Any = None

    def want(self) -> None:
        """Something was said just now, and somebody has to know whether it arrived."""
        self._wanted = self._clock()

    @property
    def asked_at(self) -> float:
        """When the question was asked that the broker has answered last; by the monotonic clock."""
        return self._heard

    def since(self, moment: float) -> bool:
        """Whether the broker has answered what was asked after that (monotonic) time."""
        return self._heard > moment

    def ask(self, channel: Any) -> None:
        """Ask, unless nobody wants to know, or this channel was asked before and has not answered yet."""
        if self._heard > self._wanted or self._asked is channel:
            return
        asked_at = self._clock()

        def answered(*_: Any) -> None:
            self._asked = None
            self._heard = asked_at

        ask_of(channel, answered)
        self._asked = channel


def ask_of(channel: Any, answered: Callable[..., None]) -> None:
    """Ask the broker something that changes nothing; ``answered`` is called once it has heard all that was said before.

    One question a channel at a time. ``channel``: py-amqp's.
    """
    # `Channel.flow` would wait. To let it flow changes nothing: it does already.
    channel._pending[spec.Channel.FlowOk] = answered
    channel.send_method(spec.Channel.Flow, "b", (True,))
