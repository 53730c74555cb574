"""A work context for tests: it reports to a function, and asks another whether it is cancelled."""

from __future__ import annotations

from collections.abc import Callable

from chiffon import WorkContext


def context(
    report: Callable[[str], object] = str,
    is_cancelled: Callable[[], bool] = lambda: False,
) -> WorkContext:
    """A context that gives each note to ``report``."""

    def tell(_: float | None, note: str | None) -> None:
        report(note or "")

    return WorkContext("t", "0" * 32, "r", 1, None, tell, is_cancelled)
