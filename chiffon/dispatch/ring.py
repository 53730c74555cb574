"""Ring: publish the doorbells of accepted tasks, off everybody's thread, and note which the broker has."""

from __future__ import annotations

import os
import queue
import threading
import time
from collections import deque
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

import structlog

from chiffon.bus.confirms import SILENCE
from chiffon.bus.letters import Doorbell, Letter, dead_letter_for, is_short
from chiffon.bus.publisher import Publisher
from chiffon.bus.topology import Topology, TopologyMismatch
from chiffon.config import Settings
from chiffon.courtesy import courteously
from chiffon.dispatch.confirmed import Confirmed
from chiffon.domain.errors import BrokerUnavailable, ChiffonError
from chiffon.domain.tasks import Ring
from chiffon.domain.verdicts import WorkError
from chiffon.ledger.condemn import condemn
from chiffon.ledger.connect import Ledger

log = structlog.get_logger(__name__)

GATHER = 2_000
"""Rings that are published together, at most: while the broker writes the first of them, the last are encoded."""

SLOWEST = 50
"""Rings a second that a broker which is merely slow may be expected to take."""

CROWD, WITHIN = 16, 0.05
"""Rings, and seconds: when so many have come in so short a time, the next ones wait for each other."""

GATHER_FOR = 0.01
"""Seconds for which they do: to publish one and to hear that it has arrived costs nearly what it costs for ten."""

CAPACITY = 20_000
"""Rings that may wait here; what comes beyond is left to the sweeper, which rings when the lease has run out."""

BACKLOG = 5_000
"""Rings that may wait here before who sweeps leases no more: those of a moment, which go before their leases end."""

_PATIENCE = 1.0


@dataclass(frozen=True)
class Debt:
    """A dead letter that is owed to ``dlx_queue``: by which execution of its task, since when, and why."""

    ring: Ring
    execution: int
    died_at: datetime
    reason: str


@dataclass(frozen=True)
class RingerState:
    """How the ringer is. ``alive``: its thread runs, or has not been needed yet. ``detail``: a sentence for people.

    ``waits``: it has tried to ring in vain, and has found no way since: RabbitMQ is away, or has other queues.
    """

    alive: bool
    connected: bool
    blocked: bool
    detail: str
    waits: bool = False


class Ringer:
    """A thread that publishes and waits for confirms. It starts with the first ring, anew in each process id."""

    def __init__(self, settings: Settings, ledger: Ledger, families: Sequence[str] = (), *, name: str = "ringer"):
        self._settings = settings
        self._ledger = ledger
        self._families = tuple(families)
        self._name = name
        self._start_lock = threading.Lock()
        self._pid = 0
        self._thread: threading.Thread | None = None
        self._state = RingerState(True, False, False, "nothing has been rung yet")
        self._wanted = False
        self._confirmed = Confirmed(ledger)
        self._came_at: deque[float] = deque(maxlen=CROWD)

    def ring(self, rings: Iterable[Ring | Debt]) -> None:
        """Publish these soon. Never blocks and never fails: what is not rung here is rung by the sweeper."""
        self._ensure_running()
        for item in rings:
            if self._waiting.qsize() >= CAPACITY:
                return
            self._waiting.put(item)

    def ready(self) -> bool:
        """Whether a ring now would reach the broker, as far as was seen last; starts the ringer, and has it look.

        Who sweeps leases nothing otherwise: the leases would run out one after the other, each twice as long.
        """
        self._ensure_running()
        self._wanted = True
        return self._state.connected and not self._state.blocked

    def room(self) -> int:
        """How many rings who sweeps may lease now. What is leased and does not get its turn waits twice as long."""
        self._ensure_running()
        return max(0, BACKLOG - self._waiting.qsize())

    def state(self) -> RingerState:
        """How it is, as far as was seen last."""
        if self._pid != os.getpid():
            return RingerState(True, False, False, "nothing has been rung yet")
        if self._thread is None or not self._thread.is_alive():
            return RingerState(False, False, False, "the ringer's thread has died; the next dispatch restarts it")
        return self._state

    def stop(self) -> None:
        """Publish what waits, for a moment, and end the thread."""
        if self._pid == os.getpid() and self._thread is not None:
            self._stopping.set()
            self._thread.join(timeout=5)

    def _ensure_running(self) -> None:
        if self._pid == os.getpid() and self._thread is not None and self._thread.is_alive():
            return
        with self._start_lock:
            if self._pid != os.getpid():  # forked: the parent's queue and thread are not ours
                self._waiting: queue.SimpleQueue[Ring | Debt] = queue.SimpleQueue()
                self._stopping = threading.Event()
                self._confirmed = Confirmed(self._ledger)
                self._pid = os.getpid()
                self._thread = None
            if self._thread is None or not self._thread.is_alive():
                self._thread = threading.Thread(target=self._run, name=self._name, daemon=True)
                self._thread.start()

    def _run(self) -> None:
        publisher = self._publisher()
        try:
            while not (self._stopping.is_set() and self._waiting.empty()):
                batch = self._gather()
                if unknown := set(filter(is_short, (item_ring(item).queue for item in batch))) - set(self._families):
                    self._families += tuple(unknown)  # a family that only another process knows
                    publisher.close()
                    publisher = self._publisher()
                try:
                    self._publish(publisher, batch) if batch else self._tend(publisher)
                except Exception:  # the thread must go on; the sweeper rings for what it had
                    log.exception("ringer_failed", rings=len(batch))
                    self._stopping.wait(_PATIENCE)
        finally:
            self._confirmed.close()
            publisher.close()

    def _publisher(self) -> Publisher:
        topology = Topology(self._settings.queue_type, self._families)
        return Publisher(self._settings.broker_url, topology, name=f"chiffon {self._name}")

    def _gather(self) -> list[Ring | Debt]:
        try:
            batch = [self._waiting.get(timeout=_PATIENCE)]
        except queue.Empty:
            return []
        is_crowded = len(self._came_at) == CROWD and time.monotonic() - self._came_at[0] < WITHIN
        if is_crowded and self._waiting.qsize() < CROWD:
            self._stopping.wait(GATHER_FOR)
        while len(batch) < GATHER:
            try:
                batch.append(self._waiting.get_nowait())
            except queue.Empty:
                break
        self._came_at.extend([time.monotonic()] * min(len(batch), CROWD))
        return list({item_ring(item).task_id: item for item in batch}.values())

    def _publish(self, publisher: Publisher, batch: Sequence[Ring | Debt]) -> None:
        # Who was just answered may have more to ask, and the broker can wait for that.
        letters = {(letter := self._letter(item)).message.message_id: (letter, item) for item in courteously(batch)}
        try:
            within = SILENCE + len(letters) / SLOWEST
            receipt = publisher.publish([letter for letter, _ in letters.values()], within=within)
        except BrokerUnavailable as error:
            self._unavailable(error)
            self._stopping.wait(_PATIENCE)
            return
        for message_id in receipt.returned:
            ring = item_ring(letters[message_id][1])
            log.error(
                "unroutable",
                queue=ring.queue,
                task_id=ring.task_id,
                request_id=ring.request_id,
                trace_id=ring.trace_id,
            )
        connected = publisher.connected
        self._state = RingerState(True, connected, publisher.blocked, receipt.why or "rings", waits=not connected)
        confirmed = [letters[message_id][1] for message_id in receipt.confirmed]
        self._confirmed.add(
            [(item.task_id, item.ring_no) for item in confirmed if isinstance(item, Ring)],
            [(item.ring.task_id, item.execution) for item in confirmed if isinstance(item, Debt)],
        )
        for message_id, why in receipt.unsayable.items():
            self._end(letters[message_id][1], why)

    def _end(self, item: Ring | Debt, why: str) -> None:
        """What AMQP cannot say is never rung: its task ends, without a letter, which could not be said either."""
        ring = item_ring(item)
        log.error(
            "unsayable",
            reason=why,
            queue=ring.queue,
            task_id=ring.task_id,
            request_id=ring.request_id,
            trace_id=ring.trace_id,
        )
        if isinstance(item, Debt):
            self._confirmed.add([], [(ring.task_id, item.execution)])
            return
        error = WorkError("DeadLettered", f"it cannot be rung for: {why}"[:1000], "chiffon")
        try:
            with self._ledger.transaction() as cursor:
                condemn(cursor, ring.task_id, error, owed=False, ttl=self._settings.idempotency_ttl)
        except ChiffonError as unwritten:  # it is rung again, and meets the same end
            log.warning("condemned_not_written", task_id=ring.task_id, reason=str(unwritten))

    def _tend(self, publisher: Publisher) -> None:
        """With nothing to ring: keep the connection, and open it if somebody waits for that."""
        try:
            publisher.open() if self._wanted or self._state.waits else publisher.tend()
        except BrokerUnavailable as error:
            self._unavailable(error)
        else:
            detail = "rings" if publisher.connected else "nothing to ring"
            self._state = RingerState(True, publisher.connected, publisher.blocked, detail)

    def _unavailable(self, error: BrokerUnavailable) -> None:
        detail = str(error) if isinstance(error, TopologyMismatch) else f"RabbitMQ does not answer: {error}"
        if self._state.detail != detail:
            log.warning("broker_unavailable", reason=str(error))
        self._state = RingerState(True, False, False, detail, waits=True)

    def _letter(self, item: Ring | Debt) -> Letter:
        bell = doorbell(item_ring(item))
        secret = self._settings.secret_parameters
        if isinstance(item, Debt):
            return dead_letter_for(bell, item.reason, died_at=item.died_at, secret=secret)
        return bell.letter(secret)


def item_ring(item: Ring | Debt) -> Ring:
    """The ring of either."""
    return item.ring if isinstance(item, Debt) else item


def doorbell(ring: Ring) -> Doorbell:
    """What a ring says on the wire."""
    canvas = ring.canvas
    return Doorbell(
        task_id=ring.task_id,
        ring_no=ring.ring_no,
        work_type=ring.work_type,
        queue=ring.queue,
        priority=ring.priority,
        parameters=ring.parameters,
        arguments=ring.arguments,
        request_id=ring.request_id,
        trace_id=ring.trace_id,
        root_id=canvas.get("root_id"),
        parent_id=canvas.get("parent_id"),
        retries=ring.retries,
        embed=canvas.get("embed"),
        group_id=canvas.get("group"),
        headers=canvas.get("headers") or {},
    )
