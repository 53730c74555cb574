"""The errors a caller can meet: one tree, a sentence each that says what is wrong and what to do."""

from __future__ import annotations

from dataclasses import dataclass


class ChiffonError(Exception):
    """The root of everything that Chiffon raises on purpose."""


@dataclass(frozen=True)
class Problem:
    """One thing wrong with an input. ``pointer`` is a JSON Pointer (RFC 6901) into it."""

    pointer: str
    detail: str


class InvalidInput(ChiffonError):
    """The input cannot be accepted; ``problems`` says where and why."""

    def __init__(self, message: str, problems: tuple[Problem, ...] = ()) -> None:
        super().__init__(message)
        self.problems = problems


class InvalidParameters(InvalidInput):
    """The parameters do not fit the work type."""


class InvalidValue(InvalidInput):
    """A value that JSON text can carry and the ledger cannot: NUL, a lone surrogate, NaN, absurd nesting."""


class NotJson(InvalidValue):
    """Text that is not JSON at all."""


class UnknownWorkType(InvalidInput):
    """No work type of that name is registered here."""

    def __init__(self, name: str, nearest: tuple[str, ...] = ()) -> None:
        hint = f"; did you mean {' or '.join(nearest)}?" if nearest else "; GET /work-types lists what is known"
        super().__init__(f"unknown work type {name!r}{hint}", (Problem("/work_type", f"unknown{hint}"),))
        self.name = name
        self.nearest = nearest


class IdempotencyKeyReused(ChiffonError):
    """The ``request_id`` belongs to a task of another work type or with other parameters."""


class TaskExists(ChiffonError):
    """The ``task_id`` belongs to a task with another payload."""


class TaskNotFound(ChiffonError):
    """No task has that id."""


class AgentNotFound(ChiffonError):
    """No agent of that name is known."""


class WrongState(ChiffonError):
    """The task is in a state from which the step asked for does not lead."""


class LedgerUnavailable(ChiffonError):
    """Postgres does not answer. Nothing was accepted; try again."""


class LedgerReadOnly(LedgerUnavailable):
    """Postgres answers and takes no writes: it is a standby, or was made read-only. Nothing was accepted; try again."""


class OutcomeUnknown(LedgerUnavailable):
    """Postgres went away before it said whether it had accepted. Repeating with the same ``request_id`` is safe."""

    def __init__(self, message: str, task_id: str, request_id: str) -> None:
        super().__init__(message)
        self.task_id = task_id
        self.request_id = request_id


class SchemaBehind(ChiffonError):
    """The ledger's schema is not the one this code needs: run ``chiffon db upgrade``."""


class BrokerUnavailable(ChiffonError):
    """RabbitMQ does not answer. What is accepted is safe in the ledger, and rung when it is back."""


class Busy(ChiffonError):
    """Somebody else holds what only one may hold at a time; try again in a moment."""


class LetterGone(InvalidInput):
    """The dead letter behind which a page was to begin is no longer in the list."""


class MalformedMessage(ChiffonError):
    """A message that no agent can run: it is dead-lettered with this reason."""
