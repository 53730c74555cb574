"""The programs under test, each with a keeper: what ends by itself is started again, as a supervisor would."""

from __future__ import annotations

import threading
import time
from dataclasses import dataclass
from pathlib import Path

from chiffon.devstack.errors import ProcessFailed
from chiffon.devstack.process import Process
from tests.chaos.incidents import Incidents

_LOOK_EVERY = 0.5


@dataclass(frozen=True)
class Life:
    """One process of a program: from its start to the next."""

    program: str
    pid: int
    began: float


class Program:
    """The API or an agent. Whoever does something to it holds ``lock``, and nobody starts it meanwhile."""

    def __init__(self, name: str, process: Process, incidents: Incidents) -> None:
        self.name = name
        self.process = process
        self.lock = threading.Lock()
        self.lives: list[Life] = []
        self._incidents = incidents

    @property
    def log(self) -> Path:
        """Where it writes."""
        return self.process.log

    def launch(self) -> None:
        """Start it, if it does not run."""
        if self.process.is_running():
            return
        try:
            self.process.launch()
            self.lives.append(Life(self.name, self.process.pid, time.time()))
        except ProcessFailed as error:
            self._incidents.happened("exit", self.name, str(error))

    def tend(self) -> None:
        """Start it again if it has ended without anybody's doing."""
        if not self.lock.acquire(blocking=False):
            return
        try:
            code = self.process.exit_code
            if code is not None:
                self._incidents.happened("exit", self.name, f"code {code}")
                self.launch()
        finally:
            self.lock.release()


class Keeper:
    """Looks after programs, from a thread of its own."""

    def __init__(self, programs: list[Program]) -> None:
        self._programs = programs
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, name="keeper", daemon=True)

    def start(self) -> None:
        """Begin."""
        self._thread.start()

    def stop(self) -> None:
        """Let go."""
        self._over.set()
        self._thread.join(10)

    def _run(self) -> None:
        while not self._over.wait(_LOOK_EVERY):
            for program in self._programs:
                program.tend()
