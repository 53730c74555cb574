"""How a run comes out: settled once, and only then is the broker told, and the world."""

from __future__ import annotations

import logging
from collections.abc import Callable
from functools import partial
from time import monotonic
from typing import Any

from celery.worker import state

from chiffon.agent import events, judging
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Finished
from chiffon.agent.delivery import Delivery
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report
from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed, Verdict
from chiffon.domain.work import WorkType
from chiffon.ledger.settle import Fenced, Recorded


class Outcome:
    """The one end of a claimed task's run.

    ``request`` is Celery's of that run, a `ClaimedRequest`. It is passed and not kept: the two would outlive their use
    until the garbage collector comes by.
    """

    def __init__(
        self,
        claim: Claim,
        delivery: Delivery,
        *,
        clerk: Clerk,
        reader: Reader,
        work_type: WorkType | None,
    ) -> None:
        self._claim = claim
        self._delivery = delivery
        self._clerk = clerk
        self._reader = reader
        self._work_type = work_type
        self._shown: str | None = None
        self.is_known = False
        """Whether it has come out somehow, or was given back."""
        self.is_withheld = False
        """Whether nothing counts for now but what its run has said: its process is about to be killed."""
        self.begun_at: float | None = None
        """The monotonic time at which the run began, once it has."""
        self.runtime: float | None = None
        """Seconds that the run took, once it has said so."""
        self.on_settled: Callable[[Any], None] = lambda request: None
        """Called with the request, once the ledger has its end."""

    def acknowledge_early(self) -> None:
        """Acknowledge the message though there is no end yet: it was kept for long, and the ledger owns the work."""
        self._delivery.acknowledge()

    def running_for(self) -> float:
        """Seconds for which it has run."""
        return self._since_begin() or 0.0

    def told(self, request: Any, report: Report) -> None:
        """The run is over, and says how it was."""
        self.is_withheld = False  # a process that was killed can say nothing: this was said before
        self.runtime = report.runtime
        self._shown = report.shown
        self.reach(request, report.verdict or judging.SILENT, report)

    def reach(self, request: Any, verdict: Verdict, report: Report | None = None) -> None:
        """Have this written down, unless another end was first."""
        if self.is_known or self.is_withheld:
            return
        self.is_known = True
        settlement, told = judging.ending(
            self._claim,
            verdict,
            report,
            reader=self._reader,
            ran_for=self._since_begin() if self.runtime is None else self.runtime,
            dead_letter=self._work_type is None or self._work_type.dead_letter,
            unknown_after=request.app.settings.unknown_after,
        )
        reply = partial(self._settled, request, settlement.verdict)
        self._clerk.tell(Finished(settlement, told, self._claim.trace_id, reply, self._claim.request_id))

    def _settled(self, request: Any, verdict: Verdict, answer: Recorded | Fenced) -> None:
        """The ledger has it: the message has done its duty."""
        claim = self._claim
        self.on_settled(request)
        state.task_ready(request, successful=isinstance(verdict, Completed))
        self._delivery.conclude(answer, (claim.task_id, claim.execution), self._clerk.tell)
        if isinstance(answer, Fenced):  # somebody else's run is the task's by now, and this one's end is no news
            request.log.warning("fenced_off", execution=claim.execution)
            return
        if logging.getLogger(__name__).isEnabledFor(logging.INFO):  # to name the task costs more than to ask
            request.log.info("task_settled", work_type=claim.work_type, status=answer.status, execution=claim.execution)
        events.tell_ended(request, verdict, answer.status, shown=self._shown, runtime=self.runtime)

    def _since_begin(self) -> float | None:
        return None if self.begun_at is None else max(0.0, monotonic() - self.begun_at)
