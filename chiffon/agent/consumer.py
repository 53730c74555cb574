"""The consumer: whatever arrives on a work queue is run, or dead-lettered with a reason, and stops nothing."""

from __future__ import annotations

import os
from typing import Any

import structlog
from celery.concurrency.prefork import TaskPool as Prefork
from celery.concurrency.solo import TaskPool as SoloPool
from celery.worker.consumer.consumer import Consumer

from chiffon import __version__
from chiffon.agent.clerk import Clerk
from chiffon.agent.commands import Draining
from chiffon.agent.connecting import Meanwhile, connected
from chiffon.agent.drain import Drain
from chiffon.agent.hearing import Hearing
from chiffon.agent.intake import Intake
from chiffon.agent.killing import finish_reads, finish_reads_before_resets, notice_the_dead, resume_writes
from chiffon.agent.life import Identity, Life
from chiffon.agent.limits import leave_limits_to_tasks
from chiffon.agent.line import Line
from chiffon.agent.mailbox import Mailbox
from chiffon.agent.outbox import Outbox
from chiffon.agent.pace import Pace
from chiffon.agent.reading import Reader
from chiffon.agent.reception import Reception
from chiffon.agent.returning import Returning
from chiffon.agent.runs import Runs
from chiffon.agent.slate import make_slates
from chiffon.agent.traffic import Traffic
from chiffon.agent.watch import HubWatch
from chiffon.bus import gulps
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.dispatch.sweep import Sweeper
from chiffon.domain.work import registry
from chiffon.ledger.connect import Ledger

log = structlog.get_logger(__name__)

FLUSH_PATIENCE = 30.0
"""Seconds, at least, that an agent which ends waits for the ledger to take what it has finished."""

_CLAIMED_WITHIN = 2.0
"""Seconds, at most, that an agent which is told to end waits for what it is claiming: the ledger may be away."""

GIVE_UP_WITHIN = 5.0
"""Seconds that an agent which hangs has for its goodbye."""

MARK_AFTER = 0.1
"""Seconds after which a run in a process of its own is noted to have begun; one that ends sooner says so itself."""

_SPARE_SLATES = 8
"""Slates beyond two for each process: a pool may grow."""


class LedgerConsumer(Consumer):
    """Celery's consumer, with the ledger between a delivery and the pool."""

    def __init__(self, *args: Any, worker_options: dict[str, Any] | None = None, **options: Any) -> None:
        # What mingle and gossip share (revokes, clocks), the ledger knows; mingle alone would cost a second at start.
        quiet = {"without_mingle": True, "without_gossip": True}
        super().__init__(*args, worker_options={**(worker_options or {}), **quiet}, **options)
        settings: Settings = self.app.settings
        identity = self._identity()
        ledger = Ledger(settings.database_url, pool_size=1)
        # Without any limit (a multiplier of 0) one agent would take all that there is.
        self._room: int = max(self.initial_prefetch_count, 1)  # type: ignore[has-type]
        self.initial_prefetch_count = self._room
        has_processes = isinstance(self.pool, Prefork)
        self._pace = Pace(settings.work_ahead if has_processes else 0.0)
        self._reader = Reader(registry, self.app.tasks, settings.max_message)
        self._mailbox = Mailbox()
        self._outbox = Outbox(self)
        hearing = Hearing()
        self._traffic = Traffic(self._consumed, self._room, settings.lost_after, lambda: hearing.asked_at)
        self._intake = Intake(self, self._room, self._pace, self._traffic, hearing, ack_after=settings.ack_after)
        self._ringer = Ringer(settings, ledger, registry.queues, name=f"ringer {self.hostname}")
        life = Life(settings.direct_url, identity)
        self._sweeper = Sweeper(
            settings,
            self._ringer,
            name=self.hostname,
            suspicions=self._traffic.suspicions,
            mine=lambda: life.incarnation,
        )
        self._clerk = Clerk(
            settings,
            life,
            self._reader,
            self._ringer,
            self._mailbox,
            mark_after=MARK_AFTER if has_processes else 0.0,
        )
        self._line = Line(
            lambda turn: self.on_task_request(turn),
            self._pace,
            make_slates(2 * self.controller.concurrency + _SPARE_SLATES) if has_processes else None,
            self._slots,
        )
        self._runs = Runs(self, settings, self._clerk, self._reader, self._pace, self._line, self._room)
        self._runs.on_room = self._intake.leave
        self._line.on_overdue = self._runs.stop_early
        self._mailbox.after = self._after_mail
        self._clerk.rounds.on_cancel = self._runs.cancel
        self._clerk.on_lost = self._runs.lose
        self._clerk.on_tick = self._on_tick
        self._runs.on_abandon = self._abandon
        self._drain = Drain(self._runs, settings.drain_seconds, name=self.hostname)
        self._drain.on_abandon = self._abandon
        self._reception = Reception(
            self._reader,
            self._intake,
            self._traffic,
            self._clerk,
            self._runs,
            unknown_after=settings.unknown_after,
            is_ending=lambda: self._drain.begun,
        )
        self._watch = HubWatch(self._mailbox.post, end=self._give_up)
        self._returning = Returning(self, settings.broker_url, self._traffic)

    def _slots(self) -> int:
        return max(1, self.pool.num_processes or 1)

    def _identity(self) -> Identity:
        return Identity(
            agent_id=self.hostname,
            slots=self.controller.concurrency,
            queues=tuple(self.app.amqp.queues.consume_from),
            work_types=tuple(sorted(name for name in self.app.tasks if not name.startswith("celery."))),
            version=__version__,
        )

    def _consumed(self) -> tuple[str, ...]:
        """The queues that this agent consumes right now: remote control may have cancelled some."""
        consumer = self.task_consumer
        queues = self.app.amqp.queues.consume_from
        return tuple(name for name in queues if consumer is not None and consumer.consuming_from(name))

    # Living

    def start(self) -> None:
        """Begin: the ledger first, so that the dead are noticed while the broker is still being called."""
        self._drain.listen()
        if self.hub is not None:
            finish_reads_before_resets(self.hub, self.pool)
        leave_limits_to_tasks(self.pool, self.app.tasks.values(), soft=self.controller.soft_time_limit)
        if not isinstance(self.pool, SoloPool):  # there the work itself holds the loop up
            self._watch.start()
        self._clerk.start()
        self._sweeper.start()
        super().start()

    def loop_args(self) -> Any:
        """What the event loop begins with, after each connect."""
        notice_the_dead(self.pool)
        finish_reads(self.pool)
        return super().loop_args()

    def register_with_event_loop(self, hub: Any) -> None:
        """Watch the mailbox on the event loop, again after each reconnect."""
        super().register_with_event_loop(hub)
        self._mailbox.register(hub)
        self._intake.connected()

    def ensure_connected(self, conn: Any) -> Any:
        """Connect, however long it takes; what runs goes on meanwhile, and ends in the ledger."""
        meanwhile = Meanwhile(self.hub, self.pool, self._mailbox)
        try:
            found = connected(conn, meanwhile)
        finally:
            if self.timer_entries_before_start is not None:  # what Celery cancels with the connection is the rest
                self.timer_entries_before_start |= meanwhile.timers
        self.first_connection_attempt = False
        return found

    def connect(self) -> Any:
        """The connection that messages come in on, watched by the event loop."""
        connection = self.connection_for_read(heartbeat=self.amqheartbeat)
        if self.hub:
            gulps.watch(connection, self.hub)
        return connection

    def connection_for_write(self, url: str | None = None, heartbeat: Any = None) -> Any:
        """The connection that events go out on, and answers to remote control."""
        return self.ensure_connected(
            self.app.connection_for_write(url=url, heartbeat=heartbeat, transport_options=self._unconfirmed())
        )

    def connection_for_read(self, heartbeat: Any = None) -> Any:
        """The connection that messages come in on."""
        return self.ensure_connected(
            self.app.connection_for_read(heartbeat=heartbeat, transport_options=self._unconfirmed())
        )

    def _unconfirmed(self) -> dict[str, Any]:
        """Without confirms: the event loop would wait for every one of them, under an alarm without end."""
        return {**self.app.conf.broker_transport_options, "confirm_publish": False}

    def on_send_event_buffered(self) -> None:
        """An event has been put by. (Celery would send it with the next turn of the loop: each in a message.)"""
        self._outbox.put_by()

    def _limit_move_to_pool(self, request: Any) -> None:
        """A task's rate lets it go now. (Celery's way, what the pool cannot be given would keep a slot for ever.)"""
        self._line.pass_by(request)

    def on_close(self) -> None:
        """The connection is gone, and what it brought will come again. What was claimed goes on: the ledger has it.

        (Stock Celery forgets what its pool has not begun, though a process may have it already, and would run it.)
        """
        if self._drain.begun:
            return  # the blueprint says so too when it stops; then the connection stands, for the last acknowledgements
        self._intake.disconnected()
        if self.event_dispatcher is not None and self.event_dispatcher.connection is not None:
            # What went silent with it would be asked for a goodbye, and waited for without an end.
            self.event_dispatcher.connection.collect()
        resume_writes(self.pool, self.hub)

    def stop(self) -> None:
        """Take nothing new; finish what runs, up to a limit."""
        self._watch.stop()
        draining = Draining()
        self._clerk.tell(draining)
        self._drain.begin()
        self._runs.give_back_waiting("its agent ends, and had not begun it")
        # Nobody opens the mailbox until the pool has ended: what is being claimed is not to wait for that.
        draining.taken.wait(_CLAIMED_WITHIN)
        self._mailbox.open()
        super().stop()
        self._intake.put_back_waiting()

    def shutdown(self) -> None:
        """Settle and acknowledge what has ended, say goodbye, and then let go of the broker."""
        self._drain.end()
        self._runs.give_back_rest("the agent ended before the work did")
        self._mailbox.open()
        self._sweeper.stop()
        if not self._clerk.stop(max(FLUSH_PATIENCE, self.app.settings.drain_seconds)):
            log.error("ended_with_unwritten_results", held=len(self._runs))
        self._mailbox.open()
        self._outbox.send_all()
        self._ringer.stop()
        super().shutdown()

    def _abandon(self) -> None:
        """End this process: a thread in it cannot be stopped, or its pool is gone. Its supervisor starts another."""
        self._drain.begun = True
        written = self._clerk.stop(FLUSH_PATIENCE)
        log.error("agent_abandoned", written=written)
        os._exit(os.EX_TEMPFAIL)

    def _give_up(self) -> None:
        """The event loop hangs: end, and leave what runs to others, who need not wait until its silence is noticed."""
        self._runs.kill_processes()
        written = self._clerk.stop(GIVE_UP_WITHIN)
        log.error("agent_gave_up", written=written)
        os._exit(os.EX_TEMPFAIL)

    def _on_tick(self) -> None:
        """See to what needs a look every moment or so."""
        self._runs.look()
        if self._runs.pool_has_closed() and not self._drain.begun:
            self._runs.surrender("the processes of its agent died too often")
            self._abandon()
        self._intake.look(self._runs.shares())
        if not self._drain.begun:
            self._returning.look()

    def _after_mail(self) -> None:
        """What came in one go has been dealt with: hand it on, and tell the broker what is done."""
        if not self._drain.begun:
            self._line.move()
        self._reception.offer_waiting()
        self._intake.flush()

    def create_task_handler(self, *_: Any, **__: Any) -> Any:
        """What takes each delivery."""
        return self._reception.take

    def on_decode_error(self, message: Any, exc: Exception) -> None:
        """A message that cannot even be taken apart. (Stock Celery acknowledges it, and it is gone.)"""
        self._reception.refuse(message, exc)
