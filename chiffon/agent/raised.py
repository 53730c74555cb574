"""What work has raised, as the ledger keeps it: in words and plain values, for an agent has no class of the work's."""

from __future__ import annotations

from typing import Any

from chiffon.agent.run import plain
from chiffon.domain.values import check_value
from chiffon.domain.verdicts import WorkError

_MOST = 10_000
"""Characters of a message, and of what JSON says of the arguments, at most."""

_TRACEBACK_LIMIT = 20_000


def message_of(exc: Any) -> str:
    """What an exception says; to put itself into words may be beyond it."""
    try:
        return _clean(str(exc))
    except Exception:  # noqa: BLE001 -- it is the work's, and may do anything
        return f"{type(exc).__name__}, which cannot be put into words"


def work_error(exc: Any, traceback: Any = None) -> WorkError:
    """An exception as the ledger keeps it."""
    kind = type(exc)
    return WorkError(
        type=_clean(kind.__name__),
        module=_clean(str(kind.__module__)),
        message=message_of(exc)[:_MOST] or _clean(kind.__name__),
        traceback=_cut(traceback),
        arguments=_arguments(exc),
    )


def _arguments(exc: Any) -> tuple[Any, ...] | None:
    """Its own arguments, if JSON can say them: what is like text or a number may be of a class of the work's."""
    try:
        arguments = list(getattr(exc, "args", ()))
        check_value(arguments)
        found = plain(arguments)
    except Exception:  # noqa: BLE001 -- they are the work's, and may be anything
        return None
    return tuple(found) if len(repr(found)) <= _MOST else None


def _cut(traceback: Any) -> str | None:
    return _clean(str(traceback))[-_TRACEBACK_LIMIT:] if traceback else None


def _clean(text: str) -> str:
    return text.replace("\x00", "\ufffd").encode("utf-8", "replace").decode()
