"""Settling many runs in one commit."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import structlog

from chiffon.agent import continuations
from chiffon.agent.backend_values import clean
from chiffon.agent.commands import Finished
from chiffon.agent.halving import halved
from chiffon.agent.life import Life
from chiffon.agent.portions import Portions
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.domain.errors import LedgerUnavailable
from chiffon.domain.states import ENDS
from chiffon.domain.verdicts import Failed, WorkError
from chiffon.ledger.failures import LostRace, RefusedData
from chiffon.ledger.settle import Fenced, Recorded, Settlement, settle

log = structlog.get_logger(__name__)

PAUSE = 0.5
"""Seconds after which what could not be settled is worth another try."""

TRIES = 5
"""Times that a run is settled in vain, for a reason that nobody foresaw, before it is settled as failed."""

Answer = tuple[Finished, Recorded | Fenced]
"""A finished run, and what the ledger made of it."""


class Settler:
    """Writes down how runs came out, and what they set off."""

    def __init__(
        self,
        settings: Settings,
        life: Life,
        reader: Reader,
        ringer: Ringer,
        *,
        pause: Callable[[float], None] = time.sleep,
    ) -> None:
        self._settings = settings
        self._life = life
        self._reader = reader
        self._ringer = ringer
        self._pause = pause
        self._portions = Portions()
        self._in_vain: Counter[tuple[str, int]] = Counter()
        """How often each execution could not be settled, though nobody was away and nobody held its row."""

    def settle(self, batch: Sequence[Finished]) -> list[Answer]:
        """Settle as many as go together; no two of one task. One whose result the ledger refuses is settled as failed.

        What is not settled now, for whatever reason, has no answer: settle it again.

        Raises LedgerUnavailable, SchemaBehind: some may have been settled; repeating is harmless.
        """
        portion = self._portions.of(batch)
        try:
            answers = halved(portion, self._together, self._alone)
        except LedgerUnavailable:
            self._portions.unanswered(portion)
            raise
        self._portions.answered(portion, [finished for finished, _ in answers])
        if len(answers) < len(portion):
            self._pause(PAUSE)
        for finished, _ in answers:
            self._in_vain.pop(finished.key, None)
        return answers

    def _together(self, batch: Sequence[Finished]) -> list[Answer]:
        is_one_statement = not any(finished.report.sets_off for finished in batch)
        with self._life.statements() if is_one_statement else self._life.transaction() as cursor:
            found = settle(
                cursor,
                [_settlement(finished) for finished in batch],
                ttl=self._settings.idempotency_ttl,
                max_crashes=self._settings.max_crashes,
            )
            endings = [
                continuations.Ending(finished.report, finished.settlement.task_id, finished.trace_id)
                for finished in batch
                if _settlement(finished).caught
                and isinstance(answer := found[finished.key], Recorded)
                and answer.fresh
                and answer.status in ENDS
            ]
            rings = continuations.write(cursor, endings, reader=self._reader, settings=self._settings)
        self._ringer.ring(rings)
        return [(finished, found[finished.key]) for finished in batch]

    def _alone(self, finished: Finished, error: Exception) -> list[Answer]:
        """What the ledger refuses for its data is given up at once. Anything else may pass, and the end is kept; but
        not for ever: a bug that only this one meets would hold up all the others, and the agent's own end.
        """
        if isinstance(error, LostRace):
            return []
        self._in_vain[finished.key] += 1
        if not isinstance(error, RefusedData) and self._in_vain[finished.key] < TRIES:
            return []
        kind = "RefusedData" if isinstance(error, RefusedData) else "InternalError"
        verdict = Failed(WorkError(kind, clean(f"the ledger cannot keep the result: {error}")[:1000], "chiffon"))
        settlement = replace(finished.settlement, verdict=verdict, children=None, anew=None, caught=False)
        failed = replace(finished, settlement=settlement, report=Report(verdict=verdict))
        return [(finished, answer) for _, answer in halved([failed], self._together, self._impossible)]

    def _impossible(self, failed: Finished, error: Exception) -> list[Answer]:
        if not isinstance(error, RefusedData):
            return []
        # Let go of it: it is given back at the next heartbeat, and run again.
        log.error(
            "settlement_impossible",
            task_id=failed.settlement.task_id,
            trace_id=failed.trace_id,
            request_id=failed.request_id,
            reason=str(error),
        )
        return [(failed, Fenced())]


def _settlement(finished: Finished) -> Settlement:
    """What is settled; what its end sets off is nobody's yet where the run has deferred it."""
    settlement = finished.settlement
    return replace(settlement, caught=False) if finished.report.deferred else settlement
