"""A log that only notes what it is told, for tests of what a line names."""

from __future__ import annotations

from typing import Any


class LogNotes:
    """Stands in for a structlog logger."""

    def __init__(self) -> None:
        self._lines: list[dict[str, Any]] = []

    def said(self, event: str) -> list[dict[str, Any]]:
        """What was said beside ``event``, each time."""
        return [line for line in self._lines if line["event"] == event]

    def _note(self, event: str, **said: Any) -> None:
        self._lines.append({"event": event, **said})

    debug = info = warning = error = exception = _note
