"""Claiming what many deliveries ring for in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from functools import partial

from chiffon.agent import continuations
from chiffon.agent.commands import Found, Hopeless, Offer, Refused
from chiffon.agent.halving import halved
from chiffon.agent.life import Life
from chiffon.agent.reading import Direct, Doorbell, Reader
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.tasks import Claim, Fate, NotDue, Settled
from chiffon.ledger import claims
from chiffon.ledger.condemn import make_way, may_wait
from chiffon.ledger.connect import Cursor
from chiffon.ledger.failures import RefusedData

Answer = tuple[Offer, Found]
"""An offer, and what becomes of it."""


class Claimer:
    """Claims tasks for one incarnation."""

    def __init__(self, settings: Settings, life: Life, reader: Reader, ringer: Ringer) -> None:
        self._settings = settings
        self._life = life
        self._reader = reader
        self._ringer = ringer

    def claim(self, batch: Sequence[Offer]) -> list[Answer]:
        """Claim; a delivery whose data the ledger refuses is refused. No two of one task or request_id (`twins`).

        What somebody else holds at the moment, or the ledger fails at for no fault of its data, has no answer: offer it
        again, later.

        Raises LedgerUnavailable: some may have been claimed; repeating with the same tokens finds them.
        """
        return halved(batch, self._together, _alone)

    def _together(self, batch: Sequence[Offer]) -> list[Answer]:
        incarnation = self._life.incarnation
        if incarnation is None:
            raise LedgerUnavailable("the agent is not registered yet")
        if all(_is_plain(offer.what) for offer in batch):
            return self._in_one_statement(batch, incarnation)
        with self._life.transaction() as cursor:
            refused, rings = continuations.bear(cursor, [offer.what for offer in batch], self._settings)
            wanted = {o.task_id: o.token for o in batch if o.task_id not in refused and o.task_id not in rings}
            fates = claims.claim(cursor, wanted, incarnation=incarnation, agent_id=self._life.identity.agent_id)
            answers: dict[str, Fate | Hopeless | Refused] = {
                task_id: self._judged(cursor, fate) for task_id, fate in fates.items()
            }
        self._ringer.ring(rings.values())
        answers |= {task_id: NotDue(task_id) for task_id in rings}
        answers |= {task_id: Refused(why) for task_id, why in refused.items()}
        return [(offer, answers[offer.task_id]) for offer in batch]

    def _in_one_statement(self, batch: Sequence[Offer], incarnation: int) -> list[Answer]:
        born = {offer.task_id: offer.what.task for offer in batch if isinstance(offer.what, Direct)}
        tokens = {offer.task_id: offer.token for offer in batch}
        with self._life.statements() as cursor:
            claim = partial(
                claims.claim,
                cursor,
                incarnation=incarnation,
                agent_id=self._life.identity.agent_id,
                lease=continuations.birth_lease(self._settings),
            )
            fates = claim(tokens, born=list(born.values()))
            if again := make_way(cursor, [task_id for task_id in born if isinstance(fates[task_id], Settled)]):
                fates |= claim({task_id: tokens[task_id] for task_id in again}, born=[born[name] for name in again])
            answers = {task_id: self._judged(cursor, fate) for task_id, fate in fates.items()}
        for task_id, task in born.items():
            if isinstance(fate := fates[task_id], Claim) and fate.fingerprint != task.fingerprint:
                continuations.warn_of_difference(task)
        return [(offer, answers[offer.task_id]) for offer in batch]

    def _judged(self, cursor: Cursor, fate: Fate) -> Fate | Hopeless:
        """A claim of a work type that this agent does not know, and nobody has known for long, is hopeless."""
        if not isinstance(fate, Claim) or fate.work_type in self._reader.celery_tasks:
            return fate
        within = self._settings.unknown_after
        return fate if may_wait(cursor, fate.task_id, fate.work_type, within=within) else Hopeless(fate)


def _is_plain(what: Doorbell | Direct) -> bool:
    """Whether nothing but its own id decides what becomes of it."""
    return isinstance(what, Doorbell) or not (what.anonymous or what.task.keyed)


def _alone(offer: Offer, error: Exception) -> list[Answer]:
    """Only what the ledger refuses for its data is dead-lettered. Anything else may pass, and may be nobody's fault: a
    right that Postgres was made to forget would have every delivery in hand be a dead letter.
    """
    return [(offer, Refused(f"the ledger cannot keep it: {error}"))] if isinstance(error, RefusedData) else []


def twins(offers: Sequence[Offer]) -> list[Offer]:
    """The offers of a task, or of a request_id, that an earlier one of the batch is about."""
    seen: set[str] = set()
    found = []
    for offer in offers:
        names = {offer.task_id}
        if isinstance(offer.what, Direct):
            names.add("request " + offer.what.task.request_id)
        if names & seen:
            found.append(offer)
        seen |= names
    return found
