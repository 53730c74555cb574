"""The runs that an agent has in hand: from the claim to the settlement."""

from __future__ import annotations

import contextlib
import signal
import time
from collections.abc import Callable
from functools import partial
from typing import Any

import structlog
from billiard.exceptions import RestartFreqExceeded
from billiard.pool import CLOSE
from celery.concurrency.prefork import TaskPool as Prefork
from celery.worker.state import task_reserved

from chiffon.agent import events, judging
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Finished, Started
from chiffon.agent.delivery import Delivery
from chiffon.agent.handover import LONG, SEEN_AFTER
from chiffon.agent.killing import kill
from chiffon.agent.line import Line
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Reader, revived
from chiffon.agent.request import ClaimedRequest
from chiffon.agent.run import Report
from chiffon.config import Settings
from chiffon.domain.tasks import Claim
from chiffon.domain.work import registry
from chiffon.ledger.settle import Fenced, Recorded, Settlement
from chiffon.logs import redacted_repr

log = structlog.get_logger(__name__)

_TOO_MUCH = 1.5
"""How many times more may be in hand than there are slots, by what is known of it now, before some is given back."""

_BY_THEN = 1.0
"""Seconds before a cancelled run's grace is over in which it is stopped, half of the grace at most: looks are half a
second apart, and when the grace is over it is to be dead, and that written down."""

_POOL_IS_LATE = 3.0
"""Seconds over its limit after which a run that goes alone is stopped here: its pool, which should, has not."""

_ABANDONED_AFTER = 1.0
"""Seconds until what a dying process gives back is rung again: by then it is dead."""


class Runs:
    """Claimed tasks on their way through the pool. Used by the event loop; `cancel` and `surrender` from any thread.

    ``consumer`` is Celery's, which knows the pool, the event dispatcher and the rate limits. ``on_room``: called when
    one of them is settled, with its delivery. ``on_abandon``: called when this process has to end, since a thread in it
    cannot be stopped. ``slots``: what may be in hand.
    """

    def __init__(
        self, consumer: Any, settings: Settings, clerk: Clerk, reader: Reader, pace: Pace, line: Line, slots: int
    ) -> None:
        self._consumer = consumer
        self._settings = settings
        self._clerk = clerk
        self._reader = reader
        self._pace = pace
        self._line = line
        self._slots = slots
        self._held: dict[tuple[str, int], ClaimedRequest] = {}
        self.on_room: Callable[[Delivery], None] = lambda delivery: None
        self.on_abandon: Callable[[], None] = lambda: None

    def __len__(self) -> int:
        return len(self._held)

    def shares(self) -> list[float]:
        """The parts of a slot that those in hand count for."""
        return [request.share for request in self._held.values()]

    def run(self, delivery: Delivery, claim: Claim) -> None:
        """Hand a claimed task to the pool."""
        consumer = self._consumer
        request = self._request(delivery, claim)
        if claim.work_type not in consumer.app.tasks:
            # A rolling deployment: an older agent meets newer work.
            why = f"{consumer.hostname} does not know {claim.work_type}"
            request.give_back(why, after=judging.backoff(claim.give_backs))
            return
        if request.revoked():
            return
        events.tell_received(request, consumer.event_dispatcher)
        task_reserved(request)
        if claim.give_backs:
            # It was in hand before, and did not begin, as far as its agent could say: it may have taken that along at
            # once. Whether it begins is written down before it does, or nobody would ever be charged.
            go_on = partial(self._line_up, request)
            self._clerk.tell(Started(claim.task_id, claim.execution, time.monotonic(), reply=go_on))
        else:
            self._line_up(request)

    def _line_up(self, request: ClaimedRequest) -> None:
        consumer, claim = self._consumer, request.claim
        try:
            if bucket := consumer.task_buckets[claim.work_type]:
                consumer._limit_task(request, bucket, 1)
            else:
                self._line.join(request)
        except Exception as error:  # noqa: BLE001 -- whatever it is, it must not be held for ever; `spoil` logs it
            request.spoil(error)

    def spoil(self, delivery: Delivery, claim: Claim, error: Exception) -> None:
        """End a claimed task that could not even be handed to the pool."""
        key = (claim.task_id, claim.execution)
        self._held.pop(key, None)
        verdict = judging.unrunnable(error)

        def settled(answer: Recorded | Fenced) -> None:
            delivery.conclude(answer, key, self._clerk.tell)
            self.on_room(delivery)

        settlement = Settlement(claim.task_id, claim.execution, verdict)
        self._clerk.tell(Finished(settlement, Report(verdict), claim.trace_id, settled, claim.request_id))

    def condemn(self, delivery: Delivery, claim: Claim, why: str) -> None:
        """End a claimed task that nobody can run."""
        self._request(delivery, claim).condemn(why)

    def decline(self, delivery: Delivery, claim: Claim, why: str) -> None:
        """Give a claimed task back at once."""
        self._request(delivery, claim).give_back(why)

    def cancel(self, key: tuple[str, int], since: float) -> None:
        """Stop a run that was asked to stop ``since`` seconds ago, if its grace is as good as over."""
        request = self._held.get(key)
        grace = self._settings.cancel_grace
        if request is not None and since >= max(grace - _BY_THEN, grace / 2):
            self._stop(request)

    def lose(self, key: tuple[str, int]) -> None:
        """Stop a run that the ledger gave to somebody else while it could not be reached."""
        request = self._held.get(key)
        if request is not None:
            request.log.warning("execution_lost", execution=key[1])
            self._stop(request)

    def stop_early(self, request: ClaimedRequest) -> None:
        """Stop a run that has its process to itself: those behind it in its hand-over have been called back."""
        if request.over_limit():
            pid = request.worker_pid
            self._consumer.pool.terminate_job(pid, signal.SIGKILL)
            kill(pid)
            request.time_out()
        else:
            request.stop(self._consumer.pool)

    def give_back_waiting(self, why: str) -> None:
        """Give back what the pool does not have, once it takes nothing more; and later what comes back from it."""
        self._line.is_closed = True
        for hand_over in self._line.under_way():
            hand_over.recall()
        for request in list(self._held.values()):
            if request.hand_over is None and request._apply_result is None:
                request.give_back(why)
        if self._line.under_way():
            time.sleep(SEEN_AFTER)
            self._line.look()  # nobody does so from here on

    def give_back_rest(self, why: str) -> None:
        """Give back what has no end, once the pool has ended: nothing of it runs any more."""
        for request in list(self._held.values()):
            request.give_back(why)

    def surrender(self, why: str, *, last_words: Callable[[], Any] = lambda: None) -> None:
        """Stop everything that runs, and give it back, uncounted. From any thread, once nothing new is taken.

        The processes are killed first: a task given back may be started elsewhere at once. Threads cannot be killed:
        there this process has to end, a moment before that. ``last_words``: called then; until it returns, the pool may
        still pass on how a run had ended.
        """
        requests = list(self._held.values())
        for request in requests:
            request.surrender()
        self.kill_processes()
        for hand_over in self._line.under_way():
            reported, begun = hand_over.told()
            for request, report in reported:
                request.on_success(report)
            if begun is not None:
                begun.note_begun()
        threads = any(request.in_thread for request in requests)
        if not threads:
            last_words()
        for request in requests:
            request.give_back(why, after=_ABANDONED_AFTER if threads else 0.0)
        if threads:
            self.on_abandon()

    def kill_processes(self) -> None:
        """Kill every process of the pool. From any thread."""
        kill(*self._processes())

    def _processes(self) -> list[int]:
        """Every process of the pool: one may have begun what the event loop does not know to have begun."""
        pool = self._consumer.pool
        return [process.pid for process in pool._pool._pool] if isinstance(pool, Prefork) else []

    def look(self) -> None:
        """What is to be seen to every moment or so."""
        self._acknowledge_old()
        self._line.look()
        load = sum(self._pace.share(request.claim.work_type) for request in self._held.values())
        if load > self._slots * _TOO_MUCH:
            self._line.shed(load - self._slots)
        for request in list(self._held.values()):
            if (seconds := request.outcome.running_for()) > LONG:
                self._pace.lasts(request.claim.work_type, seconds)
            if request.in_thread and request.over_limit():
                request.log.error("thread_over_limit", seconds=request.limit)
                request.time_out()
                self.surrender("another task of its agent could not be stopped")
                return
            if self._goes_on_over_limit(request):
                self.stop_early(request)
        # A dying process closes its pipe before it can be reaped: Celery looks once too early, and then after 5 s.
        # At the end: it may take a while, in which processes begin what nothing has been read of.
        with contextlib.suppress(RestartFreqExceeded):  # see `pool_has_closed`; the event loop meets it too
            self._consumer.pool.maintain_pool()

    def pool_has_closed(self) -> bool:
        """Whether the pool takes nothing more: its processes have died too often, or somebody has told it to end."""
        pool = self._consumer.pool
        return isinstance(pool, Prefork) and pool._pool is not None and pool._pool._state == CLOSE

    def _goes_on_over_limit(self, request: ClaimedRequest) -> bool:
        """Whether the pool's clock, which is for what goes alone, must have failed."""
        if request.hand_over is not None or request.outcome.is_known or not request.worker_pid:
            return False
        return request.outcome.running_for() > request.limit + _POOL_IS_LATE

    def _stop(self, request: ClaimedRequest) -> None:
        if request.outcome.is_known:
            return
        if not request.in_thread:
            request.stop(self._consumer.pool)
            return
        request.end_as_stopped()
        self.surrender("another task of its agent could not be stopped")

    def _acknowledge_old(self) -> None:
        """Acknowledge what has been held for long: the ledger owns it, and RabbitMQ would close the channel over it."""
        now = time.monotonic()
        for request in self._held.values():
            if now - request.claimed_at >= self._settings.ack_after:
                request.outcome.acknowledge_early()

    def _request(self, delivery: Delivery, claim: Claim) -> ClaimedRequest:
        consumer, settings = self._consumer, self._settings
        task = consumer.app.tasks.get(claim.work_type) or consumer.app.tasks["celery.accumulate"]
        known = registry.get(claim.work_type) if claim.work_type in registry else None
        celerys = known is None and claim.work_type in consumer.app.tasks
        request = ClaimedRequest(
            _revived(claim) if celerys else claim,  # what is not run here is no business of ours
            delivery,
            clerk=self._clerk,
            reader=self._reader,
            task=task,
            timeout=claim.timeout or task.time_limit or settings.default_timeout,
            work_type=known,
            shown=(redacted_repr(claim.arguments, settings), redacted_repr(claim.parameters, settings)),
            hostname=consumer.hostname,
            eventer=consumer.event_dispatcher,
            app=consumer.app,
            connection_errors=consumer.connection_errors,
        )
        key = (claim.task_id, claim.execution)
        self._held[key] = request
        request.outcome.on_settled = partial(self._settled, key, delivery)
        return request

    def _settled(self, key: tuple[str, int], delivery: Delivery, request: ClaimedRequest) -> None:
        self._held.pop(key, None)
        if (runtime := request.outcome.runtime) is not None:
            self._pace.ended(request.claim.work_type, runtime)
        self.on_room(delivery)


def _revived(claim: Claim) -> Claim:
    """The claim of an ordinary Celery task, with what its client had marked as a date, a UUID or the like made one."""
    return claim._replace(arguments=revived(claim.arguments), parameters=revived(claim.parameters))
