"""Submit: accept work by one commit, and leave the ringing to somebody else."""

from __future__ import annotations

import threading
import time
import weakref
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from datetime import datetime
from types import MappingProxyType
from typing import Any, NamedTuple, TypeAlias

from chiffon.dispatch.company import Company
from chiffon.dispatch.options import checked
from chiffon.dispatch.races import repeated
from chiffon.dispatch.twins import accept_in_order
from chiffon.domain.errors import IdempotencyKeyReused, LedgerUnavailable, OutcomeUnknown, TaskExists
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import Acceptance, Accepted, Duplicate, IdTaken, KeyReused, NewTask, Ring
from chiffon.domain.values import check_value
from chiffon.domain.work import WorkTypes, registry
from chiffon.ledger.accept import accept_inside, accept_together
from chiffon.ledger.connect import Ledger, on_connection
from chiffon.ledger.failures import CommitUnknown, LostRace, Outdated, RefusedData

_Accepted: TypeAlias = tuple[list[Acceptance], set[str]]
"""What became of each task, and the ids of those that are `pending`: theirs are the first rings."""

_LOOK_AGAIN_FOR = 4.0
"""Seconds after a commit without an answer in which it is tried to find out: less than one connect that hangs takes."""


class Order(NamedTuple):
    """What a caller wants done. Durations are seconds; None leaves it to the work type; absent ids are made up."""

    work_type: str
    parameters: Mapping[str, Any] = MappingProxyType({})
    priority: int = 3
    request_id: str | None = None
    trace_id: str | None = None
    task_id: str | None = None
    timeout_seconds: float | None = None
    max_retries: int | None = None
    delay_seconds: float | None = None
    run_at: datetime | None = None
    expires_in_seconds: float | None = None
    labels: Mapping[str, str] = MappingProxyType({})


def prepare(order: Order, work_types: WorkTypes = registry) -> NewTask:
    """The task that the order asks for.

    Raises:
        InvalidInput: it cannot be done; UnknownWorkType, InvalidParameters and InvalidValue say more.
    """
    work_type = work_types.get(order.work_type)
    parameters, labels = dict(order.parameters), dict(order.labels)
    check_value(parameters, "/parameters")
    check_value(labels, "/labels")
    asked = {name: value for name, value in order._asdict().items() if name not in {"work_type", "parameters"}}
    options = checked(asked | {"labels": labels})
    return NewTask(
        task_id=options.task_id,
        request_id=options.request_id,
        trace_id=options.trace_id,
        work_type=work_type.name,
        fingerprint=fingerprint(work_type.name, work_type.canonical(parameters)),
        parameters=parameters,
        labels=options.labels,
        priority=options.priority,
        queue=work_type.queue,
        timeout=options.timeout_seconds,
        max_retries=options.max_retries,
        delay=options.delay_seconds,
        run_at=options.run_at,
        expires_in=options.expires_in_seconds,
        fresh=order.task_id is None,
    )


def submit_all(ledger: Ledger, tasks: Sequence[NewTask], *, lease: float) -> tuple[list[Acceptance], list[Ring]]:
    """Accept tasks in one commit.

    Args:
        ledger: where to.
        tasks: twins (the same ``request_id`` or ``task_id``) are found: the later is a duplicate of the earlier.
        lease: seconds for which the caller has the first ring of each.

    Returns:
        What became of each task, in the order given; and the rings that are the caller's to publish.

    Raises:
        LedgerUnavailable: nothing was accepted.
        LostRace: neither; somebody holds one of the ids in a transaction, and does not go on.
        OutcomeUnknown: the ledger went away before it said whether it had accepted.
    """
    try:
        fates, pending = _accept(ledger, tasks, lease)
    except _Unanswered as unanswered:
        fates, pending = _accept_again(ledger, tasks, lease, unanswered)
    return fates, [
        first_ring(task)
        for task, fate in zip(tasks, fates, strict=True)
        if isinstance(fate, Accepted) and task.task_id in pending
    ]


def submit(connection: Any, work_type: str, parameters: Mapping[str, Any] | None = None, **options: Any) -> str:
    """Submit inside a transaction of the caller's own: the task exists if and when that transaction commits.

    Args:
        connection: a psycopg2 connection, or SQLAlchemy's, to the ledger's Postgres.
        work_type: the name of the work.
        parameters: its parameters.
        options: the other fields of `Order`.

    Returns:
        The task id; a duplicate's is the first task's. It is rung by the sweeper, within about a second of the commit.

    Raises:
        InvalidInput, IdempotencyKeyReused, TaskExists: nothing was written.
    """
    task = prepare(Order(work_type, parameters or {}, **options))
    with on_connection(connection) as cursor:
        # No ring of one's own: it is due at once, and whoever sweeps next rings.
        fates, _ = repeated(lambda: accept_inside(cursor, [task], lease=0))
    return accepted_id(fates[0])


def accepted_id(fate: Acceptance) -> str:
    """The id of the task that answers a dispatch. Raises IdempotencyKeyReused, TaskExists."""
    match fate:
        case KeyReused() | IdTaken():
            raise refusal(fate)
        case _:
            return fate.task_id


def refusal(fate: KeyReused | IdTaken) -> IdempotencyKeyReused | TaskExists:
    """What the caller is told."""
    match fate:
        case KeyReused(holder):
            return IdempotencyKeyReused(
                f"this request_id belongs to task {holder}, of another work type or with other parameters: "
                "use a new request_id for new work"
            )
        case IdTaken(task_id):
            return TaskExists(f"task {task_id} exists, with another payload: choose another task_id, or leave it out")


def first_ring(task: NewTask) -> Ring:
    """The ring that accepting the task has leased."""
    return Ring(
        task_id=task.task_id,
        ring_no=1,
        request_id=task.request_id,
        trace_id=task.trace_id,
        work_type=task.work_type,
        queue=task.queue,
        priority=task.priority,
        parameters=task.parameters,
        arguments=task.arguments,
        canvas=task.canvas,
        retries=0,
    )


class _Unanswered(CommitUnknown):
    """A commit without an answer. ``fates``: what has become of each task if it happened."""

    def __init__(self, message: str, fates: Sequence[Acceptance]) -> None:
        super().__init__(message)
        self.fates = fates


def _accept(ledger: Ledger, tasks: Sequence[NewTask], lease: float) -> _Accepted:
    # What lost a race does not go with the others any more: they would wait for its id, too.
    return repeated(lambda: _accept_soonest(ledger, tasks, lease), lambda: _accept_apart(ledger, tasks, lease))


def _accept_soonest(ledger: Ledger, tasks: Sequence[NewTask], lease: float) -> _Accepted:
    # Of an id that the caller chose, an answer that was lost would not be known to have been "it was there before".
    if len(tasks) == 1 and tasks[0].fresh and (one := _accept_one(ledger, tasks[0], lease)) is not None:
        return one
    return _accept_apart(ledger, tasks, lease)


def _accept_apart(ledger: Ledger, tasks: Sequence[NewTask], lease: float) -> _Accepted:
    found: _Accepted = ([], set())
    try:
        with ledger.transaction() as cursor:
            found = accept_in_order(cursor, tasks, lease=lease)
    except CommitUnknown as error:
        raise _Unanswered(str(error), found[0]) from error
    return found


def _accept_one(ledger: Ledger, task: NewTask, lease: float) -> _Accepted | None:
    """One task of which nobody has heard, in one round trip, and with what others dispatch meanwhile.

    None: somebody has heard of it, or it could not go with the others.
    """
    try:
        status = _company(ledger).ask((task, lease))
    except CommitUnknown as error:
        raise _Unanswered(str(error), [Accepted(task.task_id)]) from error
    except (LostRace, RefusedData, Outdated):
        return None
    return None if status is None else ([Accepted(task.task_id)], {task.task_id} if status == "pending" else set())


def _company(ledger: Ledger) -> Company[tuple[NewTask, float], str | None]:
    """Those who dispatch to a ledger in this process."""
    with _companies_lock:
        if ledger not in _companies:
            _companies[ledger] = Company(_Acceptor(weakref.ref(ledger)), apart=lambda asked: asked[0].request_id)
        return _companies[ledger]


@dataclass(frozen=True)
class _Acceptor:
    """Accepts what was dispatched together. The reference is weak, for the ledger's company has it."""

    ledger: weakref.ref[Ledger]

    def __call__(self, asked: Sequence[tuple[NewTask, float]]) -> list[str | None]:
        """The state of each task; None: somebody has heard of it."""
        ledger = self.ledger()
        if ledger is None:
            raise LedgerUnavailable("the ledger has been let go of")
        with ledger.statements() as cursor:
            born = accept_together(cursor, [task for task, _ in asked], lease=max(lease for _, lease in asked))
        return [born.get(task.task_id) for task, _ in asked]


_companies: weakref.WeakKeyDictionary[Ledger, Company[tuple[NewTask, float], str | None]] = weakref.WeakKeyDictionary()
_companies_lock = threading.Lock()


def _accept_again(ledger: Ledger, tasks: Sequence[NewTask], lease: float, unanswered: _Unanswered) -> _Accepted:
    """After a commit without an answer: the same ids once more, so that it has happened once, whether or not it had.

    A commit that is still under way makes this one wait for it. What had happened is left to the sweeper to ring; what
    was a duplicate then is one now.
    """
    until = time.monotonic() + _LOOK_AGAIN_FOR
    for pause in (0.0, 0.1, 0.5):
        time.sleep(pause)
        if time.monotonic() > until:
            break  # it hangs: the caller has waited long enough to be told that nobody knows
        try:
            fates, pending = _accept(ledger, tasks, lease)
        except (LedgerUnavailable, LostRace):  # it may be the one that is under way that holds the ids
            continue
        return [
            then if isinstance(then, Accepted) and now == Duplicate(then.task_id) else now
            for then, now in zip(unanswered.fates, fates, strict=True)
        ], pending
    first = tasks[0]
    raise OutcomeUnknown(
        "Postgres went away before it said whether it had accepted: repeat with the same request_id",
        first.task_id,
        first.request_id,
    ) from unanswered
