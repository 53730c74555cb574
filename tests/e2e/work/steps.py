"""Short work of one type, so that it shares hand-overs, until one of it is not short, or takes its process along."""

from __future__ import annotations

import os
import signal

from chiffon import WorkContext, work
from tests.e2e.work.diary import work_for, write


@work("test.step", timeout=60)
def step(context: WorkContext, path: str, kill: bool = False, seconds: float = 0.0) -> None:
    """Write who runs it into the file at path; then kill its own process, or work for some seconds, if it is to."""
    write(path, context, None)
    if kill:
        os.kill(os.getpid(), signal.SIGKILL)
    work_for(seconds)
