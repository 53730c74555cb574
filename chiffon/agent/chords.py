"""Going on with a chord once its header is complete: a task of its own, so that a crash loses no step."""

from __future__ import annotations

from typing import Any

from chiffon.agent.continuations import RELEASE_CHORD
from chiffon.agent.run import current
from chiffon.agent.task import LedgerTask


class ReleaseChord(LedgerTask):
    """Apply a chord's body to the results of its header, or its errbacks to the header's failure.

    What it publishes is caught, and becomes rows in the commit that settles this task.
    """

    name = RELEASE_CHORD
    ignore_result = False
    max_retries = None

    def run(self, group_id: str, callback: dict[str, Any]) -> None:
        """``callback``: the body, as a signature's dict."""
        run = current()
        if run is not None:
            run.ending = True
        self.backend.release_chord(group_id, self.app.signature(callback))


def release_task() -> ReleaseChord:
    """The task to be registered."""
    return ReleaseChord()
