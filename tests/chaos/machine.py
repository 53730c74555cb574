"""The machine: carries out a plan against real processes, waits for rest, and has everything audited."""

from __future__ import annotations

import contextlib
import subprocess
import threading
import time
from collections.abc import Callable
from pathlib import Path

import psycopg2

from chiffon.devstack.errors import DevstackError
from tests.chaos.audit.rules import audit
from tests.chaos.clients import Client
from tests.chaos.evidence import Evidence, gather, messages_in
from tests.chaos.faults.library import library
from tests.chaos.faults.messages import Rubbish, Tap
from tests.chaos.incidents import Incidents
from tests.chaos.plan import Fault, Plan
from tests.chaos.probe import probe
from tests.chaos.promises import Promises
from tests.chaos.pulse import Pulse
from tests.chaos.report import Report, make_report
from tests.chaos.stand import Stand

REST_WITHIN = 120.0
_OVERTIME = 240.0
"""Seconds after the plan's end in which faults and clients come to theirs."""

_TELL_EVERY = 5.0
_SETTLED_FOR = 3.0
"""Seconds for which it has to stay at rest: the last messages are acknowledged after the last commit."""

_UNDER_WAY = """
SELECT (SELECT count(*) FROM tasks WHERE finished_at IS NULL) AS open,
       (SELECT count(*) FROM tasks WHERE dead_letter_owed) AS owed,
       (SELECT count(*) FROM tasks) AS all
"""

Say = Callable[[str], None]


class Machine:
    """One run of a plan on a stand. ``queue_type``: as CHIFFON_QUEUE_TYPE. ``say``: where progress goes."""

    def __init__(self, plan: Plan, folder: Path, queue_type: str, say: Say) -> None:
        self._plan = plan
        self._say = say
        self._incidents = Incidents()
        self._promises = Promises()
        self._rubbish = Rubbish()
        self._library = library(self._rubbish)
        self._stand = Stand(folder, self._incidents, queue_type)
        self._pulse = Pulse(self._stand, self._promises)
        self._began = 0.0
        self.evidence: Evidence | None = None

    def run(self) -> Report:
        """Do it all."""
        with self._stand:
            self._say("everything is up")
            tap = Tap(self._stand, self._rubbish)
            tap.start()
            self._began = time.monotonic()
            self._break()
            self._say("faults and clients are done; healing")
            tap.stop()
            self._stand.heal()
            rest_seconds = self._wait_for_rest()
            self._say("killing agents at rest")
            probe(self._stand, self._promises)
            self._wait_for_rest()
            self.evidence = gather(self._stand, self._promises, self._rubbish, self._pulse.beats)
        return make_report(self._plan, self.evidence, audit(self.evidence), rest_seconds)

    def _break(self) -> None:
        clients = [Client(self._stand, self._promises, errands, self._began) for errands in self._plan.errands]
        faults = [threading.Thread(target=self._do, args=[f], daemon=True) for f in self._plan.faults]
        threads = [client.thread for client in clients] + faults
        for thread in threads:
            thread.start()
        until = self._began + self._plan.seconds + _OVERTIME
        while any(thread.is_alive() for thread in threads) and time.monotonic() < until:
            self._tell()
            for thread in threads:
                thread.join(_TELL_EVERY / len(threads))
        for client in clients:
            client.stop()
        if late := sum(thread.is_alive() for thread in threads):
            self._promises.surprises.append(f"{late} clients or faults did not come to their end")

    def _do(self, fault: Fault) -> None:
        """Do one fault when its time has come, and see how long the product takes to recover."""
        time.sleep(max(0.0, self._began + fault.at - time.monotonic()))
        try:
            with self._stand.hold(fault), self._incidents.during(fault.kind, fault.target, fault.detail) as note:
                self._say(f"{self._clock()} {fault.kind} {fault.target} {fault.detail} {fault.seconds or ''}".rstrip())
                self._library[fault.kind](self._stand, fault, note)
        except (DevstackError, subprocess.CalledProcessError, OSError) as error:
            self._promises.surprises.append(f"the machine could not do {fault}: {error}")
        self._pulse.take(f"{fault.kind} {fault.target} {fault.detail} at {fault.at:.0f}")

    def _wait_for_rest(self) -> float:
        """Wait until nothing is under way; how many seconds that took."""
        began = calm_since = time.monotonic()
        while time.monotonic() - began < REST_WITHIN:
            if not self._is_at_rest():
                calm_since = time.monotonic()
            elif time.monotonic() - calm_since >= _SETTLED_FOR:
                break
            time.sleep(1)
        return calm_since - began

    def _is_at_rest(self) -> bool:
        with contextlib.suppress(psycopg2.Error, subprocess.CalledProcessError):
            found = self._stand.ledger.rows(_UNDER_WAY)[0]
            if found["open"] or found["owed"]:
                return False
            return messages_in(self._stand, "work_queue") == 0 and self._stand.all_consume()
        return False

    def _tell(self) -> None:
        with contextlib.suppress(psycopg2.Error):
            found = self._stand.ledger.rows(_UNDER_WAY)[0]
            now = ", ".join(f"{i.kind} {i.target} {i.detail}".rstrip() for i in self._incidents.now())
            accepted = len(self._promises.ids())
            self._say(f"{self._clock()} accepted {accepted}, open {found['open']} of {found['all']}  [{now}]")

    def _clock(self) -> str:
        return f"{time.monotonic() - self._began:6.1f} s"
