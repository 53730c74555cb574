"""Connecting to the broker, however long it takes; what is not the broker's business goes on meanwhile."""

from __future__ import annotations

import time
from typing import Any

import structlog
from celery.worker.loops import _timer_entries
from celery.worker.state import maybe_shutdown

from chiffon.agent.killing import finish_reads, notice_the_dead
from chiffon.agent.mailbox import Mailbox
from chiffon.bus.connect import advice

log = structlog.get_logger(__name__)

RECONNECT_EVERY = 1.0
"""Seconds between two looks for a broker that is away. (Stock Celery waits up to 30.)"""


class Meanwhile:
    """Runs the event loop without the broker: the pool, the timers, the mailbox. One for each call for a connection.

    ``timers``: what was set meanwhile, and is not the connection's. Celery, which runs no loop before it is
    connected, takes all of that for the connection's, and cancels it with that: time limits, and whom a rate holds up.
    """

    def __init__(self, hub: Any, pool: Any, mailbox: Mailbox) -> None:
        self._hub = hub
        self._pool = pool
        self._mailbox = mailbox
        self._registered = False
        self.timers: set[Any] = set()

    def serve(self, seconds: float) -> None:
        """Run it for this long. Raises WorkerShutdown and WorkerTerminate when the agent is told to end."""
        maybe_shutdown()
        if self._hub is None:
            time.sleep(seconds)
            return
        until = time.monotonic() + seconds
        if not self._registered:  # once: each time the pool brings timers along
            notice_the_dead(self._pool)
            finish_reads(self._pool)
            self._pool.register_with_event_loop(self._hub)
            self._mailbox.register(self._hub)
            self._registered = True
        before = _timer_entries(self._hub.timer)  # the pool's are among them: each connection brings them anew
        loop = self._hub.create_loop()
        # The loop sleeps until its next timer. None may be left that raises: while a pool ends, a thread fires them.
        alarm = self._hub.call_later(seconds, lambda: None)
        try:
            while time.monotonic() < until:
                next(loop)
                maybe_shutdown()
        finally:
            alarm.cancel()
            self.timers |= _timer_entries(self._hub.timer) - before


def connected(connection: Any, meanwhile: Meanwhile) -> Any:
    """Open a connection of kombu's to one of its brokers, whatever it takes; each refusal is logged with its reason."""

    def not_yet(error: Exception, _: float = 0) -> None:
        log.warning("agent_waits_for_broker", reason=f"{connection.as_uri()}: {advice(error)}")

    brokers = 1 + len(connection.alt or ())
    while True:
        try:
            # As library errors they would be none of these, and end the agent.
            return connection.ensure_connection(not_yet, brokers, 0, 0, 0, reraise_as_library_errors=False)
        except connection.connection_errors + connection.channel_errors as error:  # a refused login is the channel's
            if not isinstance(error, connection.recoverable_connection_errors):  # kombu gives up, and says nothing
                not_yet(error)
                connection.maybe_switch_next()
            meanwhile.serve(RECONNECT_EVERY)
