"""The line before the pool: what is claimed waits here, the most urgent first, until a process has room for it."""

from __future__ import annotations

import heapq
import itertools
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import structlog
from celery.exceptions import TaskRevokedError

from chiffon.agent.handover import HandOver
from chiffon.agent.pace import Pace
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.slate import Slates

log = structlog.get_logger(__name__)

MOST = 64
"""Tasks that go in one hand-over, at most."""

MOST_SECONDS = 0.1
"""Seconds that a hand-over is expected to take, at most, however much may be held."""

_LEAST_TIMEOUT = 5.0
"""Seconds: a task with a shorter limit has the pool's own clock, and so goes alone."""


class Line:
    """Used by the event loop only, but for `under_way`.

    ``submit``: puts something that has ``execute_using_pool`` before the pool, whose turn comes when a slot is free.
    ``slates``: None where tasks go to the pool one by one (threads). ``slots``: says how many the pool has now.
    """

    def __init__(
        self, submit: Callable[[Any], Any], pace: Pace, slates: Slates | None, slots: Callable[[], int]
    ) -> None:
        self._submit = submit
        self._pace = pace
        self._slates = slates
        self._slots = slots
        self._waiting: list[tuple[int, int, ClaimedRequest]] = []
        self._order = itertools.count()
        self._turns = 0
        self._under_way: list[HandOver] = []
        self.is_closed = False
        """Whether the pool takes nothing more: then what comes back from it is for other agents."""
        self.on_overdue: Callable[[ClaimedRequest], None] = lambda request: None
        """Called with a member of a hand-over that is to be stopped, and holds up no other."""

    def join(self, request: ClaimedRequest) -> None:
        """Wait for a turn; `move` has to follow, once all that came together have joined."""
        if request.place is None:
            request.place = next(self._order)
        heapq.heappush(self._waiting, (-request.claim.priority, request.place, request))

    def pass_by(self, request: ClaimedRequest) -> None:
        """Ask the pool for a turn of its own: it has waited for its rate."""
        self._submit(SimpleNamespace(execute_using_pool=lambda pool, **_: self._put(request, [request], pool)))

    def move(self) -> None:
        """Ask the pool for turns: what goes in one is decided only when it comes."""
        while self._turns < min(len(self._waiting), self._slots()):
            self._turns += 1
            before = len(self._waiting)
            self._submit(self)
            if self._turns and len(self._waiting) == before:
                return  # it has to wait for its turn

    def execute_using_pool(self, pool: Any, **_: Any) -> None:
        """A turn has come. Raises TaskRevokedError if nobody wants it any more: then the slot is free again."""
        self._turns -= 1
        first = self._next()
        if first is None:
            raise TaskRevokedError("nothing waits any more")
        others = self._companions(first) if self._slates is not None else []
        slate = self._slates.lend() if others and self._slates is not None else None
        if slate is None:
            for other in others:
                self.join(other)
            self._put(first, [first], pool)
            return
        hand_over = HandOver([first, *others], slate, returned=self._come_back, over=self._over)
        self._under_way.append(hand_over)
        log.debug("handed_over", tasks=1 + len(others))
        self._put(hand_over, [first, *others], pool)

    def _put(self, what: Any, requests: list[ClaimedRequest], pool: Any) -> None:
        """Give the pool its turn. What it cannot even be given must not keep a slot for ever."""
        try:
            what.execute_using_pool(pool)
        except TaskRevokedError:
            raise
        except Exception as error:
            for request in requests:
                request.spoil(error)
            raise TaskRevokedError("it cannot be run") from error

    def look(self) -> None:
        """See to the hand-overs under way; to be called every moment."""
        for hand_over in list(self._under_way):
            overdue = hand_over.look()
            if overdue is not None:
                self.on_overdue(overdue)

    def shed(self, surplus: float) -> None:
        """Give back, for other agents, what takes up so many slots that this one does not have; the least urgent first.

        It was claimed because its like had been short, and now they are not.
        """
        for *_, request in sorted(self._waiting, reverse=True):
            if surplus <= 0:
                break
            if not request.outcome.is_known:
                surplus -= self._pace.share(request.claim.work_type)
                request.give_back("its like have come to take long, and another agent may be free")

    def under_way(self) -> list[HandOver]:
        """The hand-overs that the pool has. From any thread."""
        return list(self._under_way)

    def _next(self) -> ClaimedRequest | None:
        while self._waiting:
            request = heapq.heappop(self._waiting)[2]
            if not request.outcome.is_known and not request.revoked():
                return request
        return None

    def _companions(self, first: ClaimedRequest) -> list[ClaimedRequest]:
        """Who goes with it: those next in line, as long as all are expected to be short; each slot gets its part."""
        if not self._may_share(first):
            return []
        most = min(MOST, -(-(len(self._waiting) + 1) // max(1, self._slots())))
        left = min(self._pace.ahead, MOST_SECONDS) - self._pace.expected(first.claim.work_type)
        found: list[ClaimedRequest] = []
        while len(found) + 1 < most and left > 0:
            request = self._next()
            if request is None:
                break
            if not self._may_share(request):
                self.join(request)
                break
            left -= self._pace.expected(request.claim.work_type)
            found.append(request)
        return found

    def _may_share(self, request: ClaimedRequest) -> bool:
        return (
            not request.alone
            and request.soft_limit is None
            and request.limit >= _LEAST_TIMEOUT
            and self._pace.is_short(request.claim.work_type)
        )

    def _come_back(self, requests: list[ClaimedRequest]) -> None:
        for request in requests:
            if request.unwanted and request.revoked():
                continue
            if request.unwanted:
                request.give_back("stopped before it began")
            elif self.is_closed:
                request.give_back("its agent ends, and had not begun it")
            else:
                self.join(request)
        self.move()

    def _over(self, hand_over: HandOver) -> None:
        self._under_way.remove(hand_over)
        if self._slates is not None:
            self._slates.give_back(hand_over.slate)
        self.move()
