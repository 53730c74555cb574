"""Killing a process of the pool, and knowing that it is gone."""

from __future__ import annotations

import os
import signal


def kill(pid: int) -> None:
    """Kill a child of this process and wait until it runs no more; its parent's bookkeeping is left to reap it."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except (ProcessLookupError, ChildProcessError):
        return  # it is gone already
