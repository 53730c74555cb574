"""A hand-over: several short tasks in one message to a process of the pool, each with a fate of its own.

What a process says costs the agent the same for one task and for fifty. Only tasks whose like have taken a few
milliseconds lately go together. Should one of them take long all the same, those behind it are called back; should it
take its process along, only it is charged, for the slate tells who had begun.
"""

from __future__ import annotations

import time
from collections.abc import Callable, Sequence
from typing import Any

from chiffon.agent.request import ClaimedRequest
from chiffon.agent.run import Report
from chiffon.agent.slate import Slate
from chiffon.agent.trace import do_several

LONG = 0.1
"""Seconds after which a task is taken to run for long, and those behind it are called back."""

SEEN_AFTER = 0.05
"""Seconds after which a process has certainly seen that its hand-over was cut short."""


class HandOver:
    """Used by the event loop only.

    ``returned``: called with those that were not begun, whenever it is certain that they will not be.
    ``over``: called once nothing of it is under way.
    """

    def __init__(
        self,
        requests: Sequence[ClaimedRequest],
        slate: Slate,
        *,
        returned: Callable[[list[ClaimedRequest]], None],
        over: Callable[[HandOver], None],
    ) -> None:
        self.slate = slate
        self._requests = list(requests)
        self._open = dict.fromkeys(range(len(requests)))
        """The places of those whose end is not known, in order."""
        self._returned = returned
        self._over = over
        self._read = 0
        self._pid: int | None = None
        self._recalled_at: float | None = None

    def execute_using_pool(self, pool: Any) -> None:
        """Hand over. The limits of its members are looked after by `look`: they count from the start of each."""
        self.slate.wipe(len(self._requests))
        for request in self._requests:
            request.hand_over = self
        pool.apply_async(
            do_several,
            args=(self.slate.number, [request.job() for request in self._requests]),
            accept_callback=self._on_accepted,
            callback=self._on_success,
            error_callback=self._on_failure,
            correlation_id=self._requests[0].id,
        )

    # What the pool says

    def _on_accepted(self, pid: int, time_accepted: float) -> None:
        self._pid = pid

    def _on_success(self, answer: tuple[int, Report | None], **_: Any) -> None:
        """The process has come to its end of it: it ended at a place, with a report for which the slate was full."""
        place, report = answer
        self._take_reports()
        if report is not None:
            self._end(place, report)
        self._finish()

    def _on_failure(self, exc_info: Any, **_: Any) -> None:
        """The process is gone, or could not even begin."""
        self._take_reports()
        begun, at = self.slate.begun
        if begun in self._open:
            request = self._leave(begun)
            self._accept(request, at)
            request.on_failure(exc_info)
        for place in self._open:
            self._requests[place].alone = True
        self._finish()

    # What the agent wants of it

    def look(self) -> ClaimedRequest | None:
        """Take what has ended so far, and see to what runs for long; which of them runs over its limit, or None."""
        self._take_reports()
        begun, at = self.slate.begun
        now = time.monotonic()
        if begun in self._open and self._pid is not None and now - at >= LONG:  # else its process has yet to be heard
            request = self._requests[begun]
            self._accept(request, at)
            if self._recalled_at is None:
                self._recall(begun, now)
            if request.unwanted or request.over_limit():
                return request
        if self._recalled_at is not None and now - self._recalled_at >= SEEN_AFTER:
            # Whoever begins the first place after the limit now sees the limit first; it may have begun before.
            self._return([place for place in self._open if place > begun])
        return None

    def recall(self) -> None:
        """Begin nothing more of it: what is not begun comes back, soon."""
        if self._recalled_at is None:
            self._recall(self.slate.begun[0], time.monotonic())

    def told(self) -> tuple[list[tuple[ClaimedRequest, Report]], ClaimedRequest | None]:
        """What its process had noted before it was killed: who ended and how, and who had begun. From any thread."""
        reports, _ = self.slate.reports(0)
        ended = {place: report for place, _, report in reports}
        begun, _ = self.slate.begun
        running = self._requests[begun] if begun >= 0 and begun not in ended else None
        return [(self._requests[place], report) for place, report in ended.items()], running

    def catch_up(self, request: ClaimedRequest) -> bool:
        """Note whether a member has begun; False: how it ended is on its way, or who runs it. From any thread."""
        reported, running = self.told()
        if running is not request:
            return all(member is not request for member, _ in reported)
        if self._pid is not None:
            self._accept(request, self.slate.begun[1])
        return self._pid is not None

    def _recall(self, begun: int, now: float) -> None:
        self.slate.recall(begun + 1)
        self._recalled_at = now

    def _take_reports(self) -> None:
        reports, self._read = self.slate.reports(self._read)
        for place, at, report in reports:
            self._end(place, report, at)

    def _end(self, place: int, report: Report, at: float | None = None) -> None:
        if place not in self._open:
            return
        request = self._leave(place)
        if request.time_start is None and not request.outcome.is_known:
            request.begin(self._pid, self.slate.begun[1] if at is None else at)
        request.on_success(report)

    def _leave(self, place: int) -> ClaimedRequest:
        del self._open[place]
        request = self._requests[place]
        request.hand_over = None
        return request

    def _accept(self, request: ClaimedRequest, at: float) -> None:
        if request.time_start is None and not request.outcome.is_known:
            request.on_accepted(self._pid, at)

    def _return(self, places: Sequence[int]) -> None:
        rest = [self._leave(place) for place in places]
        if rest:
            self._returned(rest)

    def _finish(self) -> None:
        self._return(list(self._open))
        self._over(self)
