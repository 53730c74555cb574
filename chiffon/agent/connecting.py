"""Connecting to the broker, however long it takes; what is not the broker's business goes on meanwhile."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
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

_AT_ONCE = 0.2
"""Seconds in which a broker that is there has answered: for that, nothing else need go on."""


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

    def wake(self) -> None:
        """Have it look whether what it waits for is over. From any thread."""
        self._mailbox.post(lambda: None)

    def serve(self, seconds: float, over: threading.Event) -> None:
        """Run it for this long, or until that is over: then somebody has to `wake` it.

        Raises WorkerShutdown and WorkerTerminate when the agent is told to end.
        """
        maybe_shutdown()
        if self._hub is None:
            over.wait(seconds)
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
            while time.monotonic() < until and not over.is_set():
                next(loop)
                maybe_shutdown()
        finally:
            alarm.cancel()
            self.timers |= _timer_entries(self._hub.timer) - before


class Attempt:
    """One try at each of the brokers of kombu's ``connection``, in a thread: one that says nothing takes seconds.

    Nobody else may use the connection until it is ``over``; then ``on_over`` is called, in that thread.
    """

    def __init__(self, connection: Any, on_refusal: Callable[..., None], on_over: Callable[[], None]) -> None:
        self.over = threading.Event()
        self._connection = connection
        self._on_refusal = on_refusal
        self._on_over = on_over
        self._error: BaseException | None = None
        self._is_unwanted = False
        self._deciding = threading.Lock()
        threading.Thread(target=self._try, name="connecting", daemon=True).start()

    def result(self) -> Any:
        """The connection, once it is over. Raises what its last broker's failure was."""
        if self._error is not None:
            raise self._error
        return self._connection

    def abandon(self) -> None:
        """Nobody wants the connection any more: it is let go of, once it stands."""
        with self._deciding:
            self._is_unwanted = True
            if self.over.is_set():
                self._connection.collect()

    def _try(self) -> None:
        brokers = 1 + len(self._connection.alt or ())
        try:
            # As library errors they would be none of those that are waited out, and end the agent.
            self._connection.ensure_connection(self._on_refusal, brokers, 0, 0, 0, reraise_as_library_errors=False)
        except BaseException as error:  # noqa: BLE001 -- whoever waits for it has it raised
            self._error = error
        with self._deciding:
            self.over.set()
            if self._is_unwanted:
                self._connection.collect()
        self._on_over()


def connected(connection: Any, meanwhile: Meanwhile) -> Any:
    """Open a connection of kombu's to one of its brokers, whatever it takes; each refusal is logged with its reason."""

    def not_yet(error: Exception, _: float = 0) -> None:
        log.warning("agent_waits_for_broker", reason=f"{connection.as_uri()}: {advice(error)}")

    while True:
        attempt = Attempt(connection, not_yet, meanwhile.wake)
        _wait_for(attempt, meanwhile)  # what the event loop raises meanwhile is none of this connection's business
        try:
            return attempt.result()
        except connection.connection_errors + connection.channel_errors as error:  # a refused login is the channel's
            if not isinstance(error, connection.recoverable_connection_errors):  # kombu gives up, and says nothing
                not_yet(error)
                connection.maybe_switch_next()
            meanwhile.serve(RECONNECT_EVERY, threading.Event())


def _wait_for(attempt: Attempt, meanwhile: Meanwhile) -> None:
    attempt.over.wait(_AT_ONCE)
    try:
        while not attempt.over.is_set():
            meanwhile.serve(RECONNECT_EVERY, attempt.over)
    except BaseException:
        attempt.abandon()
        raise
