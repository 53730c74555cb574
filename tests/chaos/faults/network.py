"""Faults of the way to a service: cut, refused, slow, silent, half open, and answers that are lost."""

from __future__ import annotations

import time

from tests.chaos.incidents import Note
from tests.chaos.plan import BROKER, POSTGRES, Fault
from tests.chaos.relay import COMMIT, PUBLISH, STATEMENTS, Relay, wait_for
from tests.chaos.stand import Stand

_DEAF_FOR = {BROKER: 60.0, POSTGRES: 12.0}
"""Seconds until a half-open connection is cut after all. Postgres' clients would know by their keepalives within 11 s,
which a relay on the same host answers for the dead; a broker's know by its heartbeats."""

_MET_WITHIN = 60.0
_SLOW = (0.02, 0.4)


def cut(stand: Stand, fault: Fault, note: Note) -> None:
    """Every connection ends; new ones are welcome."""
    note.happened = _way(stand, fault).cut() > 0


def refuse(stand: Stand, fault: Fault, note: Note) -> None:
    """Every connection ends, and for a while there are no new ones."""
    way = _way(stand, fault)
    way.refuse(True)
    time.sleep(fault.seconds)
    way.refuse(False)


def delay(stand: Stand, fault: Fault, note: Note) -> None:
    """Everything arrives later."""
    way = _way(stand, fault)
    lag = _SLOW[0] + (_SLOW[1] - _SLOW[0]) * fault.pick
    note.said = f"by {lag:.2f} s"
    way.slow_down(lag)
    time.sleep(fault.seconds)
    way.slow_down(0)


def silence(stand: Stand, fault: Fault, note: Note) -> None:
    """A partition: nothing arrives, and nobody is told; at its end the connections turn out to be dead."""
    way = _way(stand, fault)
    way.fall_silent(True)
    time.sleep(fault.seconds)
    way.fall_silent(False)


def half_open(stand: Stand, fault: Fault, note: Note) -> None:
    """The service has forgotten the connections, and the program does not know."""
    note.happened = _way(stand, fault).half_open(_DEAF_FOR[fault.detail]) > 0
    if fault.detail == POSTGRES:
        time.sleep(_DEAF_FOR[POSTGRES])


def swallow_commit(stand: Stand, fault: Fault, note: Note) -> None:
    """A commit happens, and nobody is told."""
    way = stand.relays[fault.target, POSTGRES]
    met = way.swallow_answer(STATEMENTS[fault.detail], COMMIT)
    if fault.detail == "register":  # which nobody does in the middle of its life
        program = stand.program(fault.target)
        with program.lock:
            program.process.stop()
            program.launch()
    elif fault.detail == "rejoin":
        way.cut()
    note.happened = wait_for(met, _MET_WITHIN)
    way.swallow_nothing()


def swallow_confirm(stand: Stand, fault: Fault, note: Note) -> None:
    """A message is published, and nobody is told."""
    way = stand.relays[fault.target, BROKER]
    met = way.swallow_answer(b"", PUBLISH)
    note.happened = wait_for(met, _MET_WITHIN)
    way.swallow_nothing()


def _way(stand: Stand, fault: Fault) -> Relay:
    return stand.relays[fault.target, fault.detail]
