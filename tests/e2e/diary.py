"""The witness that is not the accused: the file that `test.append` writes into, read back."""

from __future__ import annotations

import json
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any


@dataclass(frozen=True)
class Entry:
    """One real run, as the work itself wrote it down."""

    task_id: str
    attempt: int
    pid: int
    note: Any


@dataclass(frozen=True)
class Diary:
    """A file of entries."""

    path: Path

    def parameters(self, note: Any = None, *, seconds: float = 0.0) -> dict[str, Any]:
        """Return the parameters of a `test.append` that writes here."""
        return {"path": str(self.path), "note": note, "seconds": seconds}

    def entries(self, task_id: str | None = None) -> list[Entry]:
        """Return what was written, in order, of one task or of all."""
        if not self.path.exists():
            return []
        found = [Entry(**json.loads(line)) for line in self.path.read_text().splitlines()]
        return [entry for entry in found if task_id in {None, entry.task_id}]

    def task_ids(self) -> list[str]:
        """Return the task of each entry, in the order written."""
        return [entry.task_id for entry in self.entries()]

    def notes(self, task_id: str | None = None) -> list[Any]:
        """Return the note of each entry, in the order written, of one task or of all."""
        return [entry.note for entry in self.entries(task_id)]

    def has_each_once(self, task_ids: Iterable[str]) -> bool:
        """Tell whether exactly these tasks were run, each of them once."""
        return sorted(self.task_ids()) == sorted(task_ids)
