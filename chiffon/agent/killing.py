"""Hands on the pool's processes, where Celery has none: killing one, and ending what is being said to one or by one."""

from __future__ import annotations

import os
import signal
import time
from typing import Any


def kill(pid: int) -> None:
    """Kill a child of this process and wait until it runs no more; its parent's bookkeeping is left to reap it."""
    try:
        os.kill(pid, signal.SIGKILL)
        os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT)
    except (ProcessLookupError, ChildProcessError):
        return  # it is gone already


def notice_the_dead(pool: Any) -> None:
    """Before a prefork pool is registered with its event loop: have it notice again who has died meanwhile.

    Celery lets go of a dead process's descriptor before it lets go of the process; an event loop that begins in between
    finds none to watch, and ends the agent over that.
    """
    for process in getattr(getattr(pool, "_pool", None), "_pool", None) or ():
        if getattr(process, "_sentinel_poll", False) is None:
            del process._sentinel_poll  # then its own descriptor is watched, which says at once that it is dead


_WRITING_TAKES = 5.0
"""Seconds, at most, until a process has read what was being written to it."""


def finish_writes(pool: Any) -> None:
    """Finish what was being written to the processes of a prefork pool when its event loop was reset.

    The loop forgets its writers; a process would wait for ever for the rest of a payload that it has half of.
    """
    writers = getattr(getattr(pool, "_pool", None), "_active_writers", None)
    until = time.monotonic() + _WRITING_TAKES
    while writers and time.monotonic() < until:
        for writer in list(writers):
            try:
                next(writer)
            except (StopIteration, OSError, EOFError):
                writers.discard(writer)
        time.sleep(0.001)


def finish_reads(pool: Any) -> None:
    """Before a prefork pool's event loop forgets its readers: read on what a part of has been read.

    Whoever reads next would take the rest of a result for the beginning of another.
    """
    asynpool: Any = getattr(pool, "_pool", None)
    processes = getattr(asynpool, "_fileno_to_outq", None) or {}
    for descriptor, process in list(processes.items()):
        if asynpool._result_handler._finish_partial_read(descriptor, process):  # it says no more
            kill(process.pid)
            processes.pop(descriptor, None)


def finish_reads_before_resets(hub: Any, pool: Any) -> None:
    """Have Celery finish them whenever it resets its event loop, as it does when it loses its connection."""
    reset = hub.reset

    def finish_and_reset() -> None:
        try:
            finish_reads(pool)
        finally:
            reset()

    hub.reset = finish_and_reset
