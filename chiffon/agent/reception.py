"""The reception: each delivery is read, offered to the ledger, and run; or refused, with a reason."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import structlog

from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Condemned, Found, Hopeless, Offer, Refused, Unclaimed
from chiffon.agent.delivery import Delivery
from chiffon.agent.intake import Intake, What
from chiffon.agent.reading import Direct, Doorbell, Reader, Unrunnable
from chiffon.agent.runs import Runs
from chiffon.agent.traffic import Traffic
from chiffon.domain.errors import MalformedMessage
from chiffon.domain.tasks import Absent, Claim, NewTask

log = structlog.get_logger(__name__)


class Reception:
    """Used by the event loop only.

    ``unknown_after``: seconds until it is over for work that no agent knows. ``is_ending``: whether the agent ends.
    """

    def __init__(
        self,
        reader: Reader,
        intake: Intake,
        traffic: Traffic,
        clerk: Clerk,
        runs: Runs,
        *,
        unknown_after: float,
        is_ending: Callable[[], bool],
    ) -> None:
        self._reader = reader
        self._intake = intake
        self._traffic = traffic
        self._clerk = clerk
        self._runs = runs
        self._unknown_after = unknown_after
        self._is_ending = is_ending

    def take(self, message: Any) -> None:
        """A delivery has come. Raises nothing over it: nothing on the wire stops an agent."""
        delivery = self._intake.take(message)
        try:
            what = self._reader.read(message)
        except Unrunnable as error:
            self._refuse(delivery, str(error), error.task)
        except MalformedMessage as error:
            self._refuse(delivery, str(error))
        except Exception as error:  # it may be anything
            log.exception("message_unreadable")
            self._refuse(delivery, f"the agent could not read it: {error!r}")
        else:
            self._intake.wait(delivery, what)
            self.offer_waiting()

    def refuse(self, message: Any, why: Exception) -> None:
        """A delivery has come that cannot even be taken apart."""
        self._refuse(self._intake.take(message), str(why))

    def offer_waiting(self) -> None:
        """Offer to the clerk what there is a slot for; nothing more once the agent ends, for others are there."""
        if self._is_ending():
            return
        for delivery, what in self._intake.admit():
            self._clerk.tell(Offer(what, partial(self._on_fate, delivery, what)))

    def _on_fate(self, delivery: Delivery, what: What, fate: Found) -> None:
        if not isinstance(fate, Claim | Hopeless):
            self._intake.leave(delivery)
        match fate:
            case Claim() if self._is_ending():
                self._guarded(self._runs.decline, delivery, fate, "the agent is ending")
            case Claim():
                self._traffic.claimed(fate.queue, fate.priority, fate.queued_at)
                self._guarded(self._runs.run, delivery, fate)
            case Hopeless(claim):
                why = f"no agent has known {claim.work_type} for {self._unknown_after:g} s"
                self._guarded(self._runs.condemn, delivery, claim, why)
            case Unclaimed():
                self._intake.wait(delivery, what)  # as before it was offered
            case Refused():
                self._refuse(delivery, str(fate), what.task if isinstance(what, Direct) else None)
            case Absent() if isinstance(what, Doorbell):
                self._refuse(delivery, f"it rings for task {what.task_id}, which the ledger does not have")
            case _:
                # Ended, held, or not due: whoever has it, this was only a doorbell.
                log.debug("doorbell_acknowledged", rings_for=fate.task_id, fate=type(fate).__name__)
                delivery.acknowledge()

    def _guarded(self, act: Callable[..., None], delivery: Delivery, claim: Claim, *why: str) -> None:
        """Do this with a claimed task, or end it: it must not keep its place for ever."""
        try:
            act(delivery, claim, *why)
        except Exception as error:
            log.exception("claim_not_run", task_id=claim.task_id, request_id=claim.request_id, trace_id=claim.trace_id)
            self._runs.spoil(delivery, claim, error)

    def _refuse(self, delivery: Delivery, reason: str, task: NewTask | None = None) -> None:
        """Dead-letter a delivery; if it names a task, whoever waits for that is told."""
        task = task or self._remains(delivery.message)
        reason = reason[:1000]  # it may quote what came
        message = delivery.message
        log.error(
            "message_dead_lettered",
            reason=reason,
            message_id=(message.properties or {}).get("message_id"),
            queue=(message.delivery_info or {}).get("routing_key"),
            task_id=task.task_id if task else None,
            request_id=task.request_id if task else None,
            trace_id=task.trace_id if task else None,
        )
        if task is not None:
            self._clerk.tell(Condemned(task, reason))
        delivery.dead_letter()

    def _remains(self, message: Any) -> NewTask | None:
        try:
            return self._reader.remains(message)
        except Exception:  # it may be anything
            log.exception("message_unreadable")
            return None
