"""Settling many runs in one commit."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import replace

import structlog

from chiffon.agent import continuations
from chiffon.agent.commands import Finished
from chiffon.agent.halving import halved
from chiffon.agent.life import Life
from chiffon.agent.reading import Reader
from chiffon.agent.run import Report
from chiffon.config import Settings
from chiffon.dispatch.ring import Ringer
from chiffon.domain.errors import LedgerUnavailable, SchemaBehind
from chiffon.domain.states import ENDS
from chiffon.domain.verdicts import Failed, WorkError
from chiffon.ledger.connect import LostRace
from chiffon.ledger.settle import Fenced, Recorded, settle

log = structlog.get_logger(__name__)

Answer = tuple[Finished, Recorded | Fenced]
"""A finished run, and what the ledger made of it."""


class Settler:
    """Writes down how runs came out, and what they set off."""

    def __init__(self, settings: Settings, life: Life, reader: Reader, ringer: Ringer) -> None:
        self._settings = settings
        self._life = life
        self._reader = reader
        self._ringer = ringer

    def settle(self, batch: Sequence[Finished]) -> list[Answer]:
        """Settle; a run whose result the ledger refuses is settled as failed. No two of one task.

        Raises LedgerUnavailable: some may have been settled; repeating is harmless.
        """
        return halved(batch, self._together, self._refused)

    def _together(self, batch: Sequence[Finished]) -> list[Answer]:
        with self._life.transaction() as cursor:
            found = settle(
                cursor,
                [finished.settlement for finished in batch],
                ttl=self._settings.idempotency_ttl,
                max_crashes=self._settings.max_crashes,
            )
            endings = [
                continuations.Ending(finished.report, finished.settlement.task_id, finished.trace_id)
                for finished in batch
                if finished.settlement.caught
                and isinstance(answer := found[finished.key], Recorded)
                and answer.fresh
                and answer.status in ENDS
            ]
            rings = continuations.write(cursor, endings, reader=self._reader, lease=self._settings.ring_lease)
        self._ringer.ring(rings)
        return [(finished, found[finished.key]) for finished in batch]

    def _refused(self, finished: Finished, error: Exception) -> list[Answer]:
        if isinstance(error, LostRace):
            return []
        verdict = Failed(WorkError("RefusedData", f"the ledger cannot keep the result: {error}"[:1000], "chiffon"))
        settlement = replace(finished.settlement, verdict=verdict, children=None, meta=None, anew=None, caught=False)
        failed = replace(finished, settlement=settlement, report=Report(verdict=verdict))
        try:
            return [(finished, answer) for _, answer in self._together([failed])]
        except (LedgerUnavailable, SchemaBehind, LostRace):
            raise
        except Exception:  # let go of it: it is given back at the next heartbeat, and run again
            log.exception("settlement_impossible", task_id=settlement.task_id, trace_id=finished.trace_id)
            return [(finished, Fenced())]
