"""An agent by hand: claims and settles through the ledger's own statements, when a test says so."""

from __future__ import annotations

import contextlib
import json
import uuid
from types import TracebackType
from typing import Any, Self

from chiffon.domain.tasks import Claim
from chiffon.domain.verdicts import Completed, Failed, Verdict, WorkError
from chiffon.ledger import agents, claims, settle
from chiffon.ledger.connect import open_session, session_transaction


class HandAgent:
    """A registered incarnation with a session of its own, as a context manager."""

    def __init__(self, ledger_url: str, agent_id: str = "hand@test", *, ttl: float = 300) -> None:
        self.agent_id = agent_id
        self._ttl = ttl
        self._session = open_session(ledger_url, agent_id)
        with session_transaction(self._session) as cursor:
            self.incarnation = agents.register(
                cursor,
                agent_id=agent_id,
                hostname="here",
                pid=1,
                slots=2,
                queues=["work_queue"],
                work_types=["echo"],
                version="test",
            )

    def claim(self, task_id: str) -> Claim:
        """Claim a task that must be there to be claimed."""
        with session_transaction(self._session) as cursor:
            fates = claims.claim(
                cursor, {task_id: str(uuid.uuid4())}, incarnation=self.incarnation, agent_id=self.agent_id
            )
        found = fates[task_id]
        assert isinstance(found, Claim), found
        return found

    def settle(self, claim: Claim, verdict: Verdict) -> None:
        """End an execution."""
        with session_transaction(self._session) as cursor:
            settle.settle(
                cursor,
                [settle.Settlement(claim.task_id, claim.execution, verdict, ran_for=0.0)],
                ttl=self._ttl,
                max_crashes=3,
            )

    def report(self, claim: Claim, progress: Any) -> None:
        """Say how far it is."""
        with session_transaction(self._session) as cursor:
            assert claims.record_progress(cursor, claim.task_id, claim.execution, json.dumps(progress))

    def complete(self, task_id: str, result: Any) -> None:
        """Do the work."""
        self.settle(self.claim(task_id), Completed(json.dumps(result)))

    def fail(self, task_id: str, message: str = "it said no") -> None:
        """Say no."""
        self.settle(self.claim(task_id), Failed(WorkError("Fail", message)))

    def leave(self) -> None:
        """Say goodbye."""
        with session_transaction(self._session) as cursor:
            agents.leave(cursor, self.incarnation)

    def __enter__(self) -> Self:
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        with contextlib.suppress(Exception):
            self._session.close()
