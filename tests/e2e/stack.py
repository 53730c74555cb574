"""What one scenario runs: its own virtual host, ledger, and settings in seconds where the product counts minutes."""

from __future__ import annotations

import sys
import uuid
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from pathlib import Path

from chiffon.devstack.process import Process

REPOSITORY = Path(__file__).parents[2]

QUICK = {
    "CHIFFON_HEARTBEAT_SECONDS": "1",
    "CHIFFON_OFFLINE_AFTER": "3",
}
"""The times that the product counts in minutes; that the true ones are the defaults is proven by the unit tests."""


@dataclass(frozen=True)
class StackUnderTest:
    """How to start a program that belongs to one scenario. ``name`` is unique, ``folder`` takes the logs."""

    broker_url: str
    ledger_url: str
    folder: Path
    api_key: str = field(default_factory=lambda: uuid.uuid4().hex)
    name: str = field(default_factory=lambda: uuid.uuid4().hex[:8])
    _programs: list[Process] = field(default_factory=list)

    def settings(self, **others: object) -> dict[str, str]:
        """Return the environment of every program of the stack; ``others`` by their names without ``CHIFFON_``."""
        return {
            "CHIFFON_BROKER_URL": self.broker_url,
            "CHIFFON_DATABASE_URL": self.ledger_url,
            "CHIFFON_API_KEYS": self.api_key,
            "CHIFFON_WORKERS": "workers,tests.e2e.work",
            **QUICK,
            **{f"CHIFFON_{name.upper()}": str(value) for name, value in others.items()},
        }

    def program(
        self,
        name: str,
        *command: str,
        ready: Callable[[], bool] = lambda: True,
        environment: Mapping[str, str] | None = None,
        folder: Path = REPOSITORY,
        **others: object,
    ) -> Process:
        """Describe a Python program (``python -m ...``) with a log of its own.

        Args:
            name: of its log.
            command: the module and its arguments.
            ready: whether it serves.
            environment: for what is none of Chiffon's settings.
            folder: in which it runs; what it imports is the repository's where the folder has no module of that name.
            others: Chiffon's settings, instead of the stack's, by their names without ``CHIFFON_``.
        """
        program = Process(
            name,
            [sys.executable, "-m", *command],
            log=self.folder / f"{name}.log",
            environment={"PYTHONPATH": str(REPOSITORY)} | self.settings(**others) | dict(environment or {}),
            folder=folder,
            ready=ready,
        )
        self._programs.append(program)
        return program

    def end(self) -> None:
        """End every program that still runs."""
        for program in self._programs:
            program.kill()
