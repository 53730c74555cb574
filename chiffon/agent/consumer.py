"""The consumer: whatever arrives on a work queue is run, or dead-lettered with a reason, and stops nothing."""

from __future__ import annotations

from typing import Any

import structlog
from celery.worker.consumer.consumer import Consumer
from celery.worker.state import maybe_shutdown, task_reserved

from chiffon import __version__
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Condemned, Draining, Hopeless, Offer, Refused
from chiffon.agent.life import Identity, Life
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.reading import Direct, Doorbell, Reader, Unrunnable, revived
from chiffon.agent.request import ClaimedRequest, backoff
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.sweep import Sweeper
from chiffon.domain.errors import MalformedMessage
from chiffon.domain.tasks import Absent, Claim, Fate
from chiffon.domain.work import registry
from chiffon.ledger.connect import Ledger
from chiffon.logs import redacted_repr

log = structlog.get_logger(__name__)

FLUSH_PATIENCE = 30.0
"""Seconds that an agent which ends waits for the ledger to take what it has finished."""


class LedgerConsumer(Consumer):
    """Celery's consumer, with the ledger between a delivery and the pool."""

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        # What mingle and gossip share (revokes, clocks), the ledger knows; mingle alone would cost a second at start.
        quiet = {"without_mingle": True, "without_gossip": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **options)
        settings: Settings = self.app.settings
        self.mailbox = Mailbox()
        self.held: dict[tuple[str, int], ClaimedRequest] = {}
        self._connections = 0
        identity = self._identity()
        self._reader = Reader(registry, self.app.tasks, settings.max_message)
        self._ringer = Ringer(
            settings, Ledger(settings.database_url, pool_size=1), registry.queues, name=f"ringer {self.hostname}"
        )
        self._sweeper = Sweeper(settings, self._ringer, name=self.hostname)
        self._life = Life(settings.direct_url, identity)
        self.clerk = Clerk(settings, self._life, self._reader, self._ringer, self.mailbox)
        self.clerk.on_cancel = self._cancel
        self.clerk.on_lost = self._lost
        self._draining = False

    def _identity(self) -> Identity:
        return Identity(
            agent_id=self.hostname,
            slots=self.controller.concurrency,
            queues=tuple(self.app.amqp.queues.consume_from),
            work_types=tuple(sorted(name for name in self.app.tasks if not name.startswith("celery."))),
            version=__version__,
        )

    # Living

    def start(self) -> None:
        """Begin: the ledger first, so that the dead are noticed while the broker is still being called."""
        self.clerk.start()
        self._sweeper.start()
        super().start()

    def register_with_event_loop(self, hub: Any) -> None:
        """Watch the mailbox on the event loop, again after each reconnect."""
        super().register_with_event_loop(hub)
        self.mailbox.register(hub)

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes, looking every second. (Stock Celery waits up to 30.)"""

        def not_yet(error: Exception, wait: float) -> None:
            log.warning("agent_waits_for_broker", reason=f"{conn.as_uri()}: {error}", next_try_in=wait)

        connected = conn.ensure_connection(not_yet, None, 0.5, 0.5, 1.0, callback=maybe_shutdown)
        self.first_connection_attempt = False
        return connected

    def on_close(self) -> None:
        """The connection is gone, and with it what the pool has not begun: it goes back to the ledger."""
        self._connections += 1
        for request in list(self.held.values()):
            if request.time_start is None:
                request.give_back("the broker's connection was lost before it began")
        super().on_close()

    def stop(self) -> None:
        """Take nothing new."""
        self._draining = True
        self.clerk.tell(Draining())
        super().stop()

    def shutdown(self) -> None:
        """Settle and acknowledge what has ended, say goodbye, and then let go of the broker."""
        self._draining = True
        self.mailbox.open()
        self._sweeper.stop()
        if not self.clerk.stop(FLUSH_PATIENCE):
            log.error("ended_with_unwritten_results", held=len(self.held))
        self.mailbox.open()
        self._ringer.stop()
        super().shutdown()

    # Deliveries

    def create_task_handler(self, *_: Any, **__: Any) -> Any:
        """What takes each delivery."""
        return self._on_delivery

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A message that cannot even be taken apart. (Stock Celery acknowledges it, and it is gone.)"""
        self._refuse(message, str(exc))

    def _on_delivery(self, message: Any) -> None:
        try:
            what = self._reader.read(message)
        except Unrunnable as error:
            self._refuse(message, str(error), task=error.task)
        except MalformedMessage as error:
            self._refuse(message, str(error))
        except Exception as error:  # nothing on the wire stops an agent
            log.exception("message_unreadable")
            self._refuse(message, f"the agent could not read it: {error!r}")
        else:
            self.clerk.tell(Offer(what, lambda fate: self._on_fate(message, what, fate)))

    def _on_fate(self, message: Any, what: Doorbell | Direct, fate: Fate | Hopeless | Refused) -> None:
        match fate:
            case Claim() if self._draining:
                self._claimed(message, fate).give_back("the agent is ending")
            case Claim():
                self._run(message, fate)
            case Hopeless(claim):
                why = f"no agent has known {claim.work_type} for {self.app.settings.unknown_after:g} s"
                self._claimed(message, claim).condemn(why)
            case Refused():
                self._refuse(message, str(fate))
            case Absent() if isinstance(what, Doorbell):
                self._refuse(message, f"it rings for task {what.task_id}, which the ledger does not have")
            case _:
                # Ended, held, or not due: whoever has it, this was only a doorbell.
                log.debug("doorbell_acknowledged", task_id=fate.task_id, fate=type(fate).__name__)
                message.ack_log_error(log, self.connection_errors)

    def _refuse(self, message: Any, reason: str, task: Any = None) -> None:
        """Dead-letter a delivery."""
        properties = message.properties or {}
        log.error(
            "message_dead_lettered",
            reason=reason,
            message_id=properties.get("message_id"),
            queue=(message.delivery_info or {}).get("routing_key"),
            task_id=task.task_id if task else None,
            trace_id=task.trace_id if task else None,
        )
        if task is not None:
            self.clerk.tell(Condemned(task, reason))
        message.reject_log_error(log, self.connection_errors, requeue=False)

    # Running

    def _run(self, message: Any, claim: Claim) -> None:
        if claim.work_type not in self.app.tasks:
            # A rolling deployment: an older agent meets newer work.
            self._claimed(message, claim).give_back(
                f"{self.hostname} does not know {claim.work_type}", after=backoff(claim.give_backs)
            )
            return
        request = self._claimed(message, claim)
        if request.revoked():
            return
        if self.event_dispatcher and self.event_dispatcher.enabled:
            request.send_event(
                "task-received",
                name=request.name,
                args=request.argsrepr,
                kwargs=request.kwargsrepr,
                root_id=request.root_id,
                parent_id=request.parent_id,
                retries=claim.retries,
                eta=None,
                expires=None,
            )
        task_reserved(request)
        if bucket := self.task_buckets[claim.work_type]:
            self._limit_task(request, bucket, 1)
        else:
            self.on_task_request(request)

    def _claimed(self, message: Any, claim: Claim) -> ClaimedRequest:
        settings: Settings = self.app.settings
        task = self.app.tasks.get(claim.work_type) or self.app.tasks["celery.accumulate"]
        known = registry.get(claim.work_type) if claim.work_type in registry else None
        generation = self._connections
        request = ClaimedRequest(
            Claim(**{**vars(claim), "arguments": revived(claim.arguments), "parameters": revived(claim.parameters)}),
            message,
            clerk=self.clerk,
            reader=self._reader,
            task=task,
            timeout=claim.timeout or task.time_limit or settings.default_timeout,
            dead_letter=known.dead_letter if known else True,
            connected=lambda: self._connections == generation,
            shown=(redacted_repr(claim.arguments, settings), redacted_repr(claim.parameters, settings)),
            hostname=self.hostname,
            eventer=self.event_dispatcher,
            app=self.app,
            connection_errors=self.connection_errors,
        )
        key = (claim.task_id, claim.execution)
        self.held[key] = request
        request.on_settled = lambda: self.held.pop(key, None)
        return request

    def _cancel(self, key: tuple[str, int], since: float) -> None:
        request = self.held.get(key)
        if request is not None and since >= self.app.settings.cancel_grace:
            request.cancel_now(self.pool)

    def _lost(self, key: tuple[str, int]) -> None:
        """The ledger gave it to somebody else while it could not be reached."""
        request = self.held.get(key)
        if request is not None:
            log.warning("execution_lost", task_id=key[0], execution=key[1])
            request.cancel_now(self.pool)
