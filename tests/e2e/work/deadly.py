"""Work that takes its whole agent along before anybody can say that it has begun, and work that takes too long."""

from __future__ import annotations

import os
import signal
import time

from chiffon import RetryPolicy, WorkContext, work
from tests.e2e.work.diary import write

AGENT = os.getpid()
"""The main process: this module is imported before it forks its pool."""


@work("test.kill_agent", timeout=60)
def kill_agent(context: WorkContext, path: str) -> None:
    """End the whole agent, as the first thing that it does."""
    write(path, context, None)
    os.kill(AGENT, signal.SIGKILL)
    time.sleep(60)


@work("test.too_slow_at_first", timeout=1, retries=1, retry_timeouts=True, backoff=RetryPolicy(base=0.1, ceiling=0.1))
def too_slow_at_first(context: WorkContext, path: str) -> None:
    """Take longer than is allowed at the first attempt."""
    write(path, context, None)
    time.sleep(30 if context.attempt == 1 else 0)
