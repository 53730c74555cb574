"""Hands on the pool's processes, where Celery has none: killing one, and ending what is being said to one or by one."""

from __future__ import annotations

import contextlib
import inspect
import os
import signal
import time
from typing import Any

_DEAD_WITHIN = 1.0
"""Seconds, at most, that the dying are waited for, all together: the event loop may be the one that waits."""

_LOOK_EVERY = 0.002
"""Seconds between two looks at them; nearly all are dead by the first."""


def kill(*pids: int) -> None:
    """Kill children of this process and wait until they run no more; their parent's bookkeeping is left to reap them.

    One that is in a call of the kernel's which nothing interrupts (a disk that hangs) is not waited for: should that
    come to an end, the process will all the same.
    """
    for pid in pids:
        with contextlib.suppress(ProcessLookupError):  # it is gone already
            os.kill(pid, signal.SIGKILL)
    deadline = time.monotonic() + _DEAD_WITHIN
    for pid in pids:
        while _runs(pid) and time.monotonic() < deadline:
            time.sleep(_LOOK_EVERY)


def _runs(pid: int) -> bool:
    try:
        return os.waitid(os.P_PID, pid, os.WEXITED | os.WNOWAIT | os.WNOHANG) is None
    except ChildProcessError:
        return False


def notice_the_dead(pool: Any) -> None:
    """Before a prefork pool is registered with its event loop: have it notice again who has died meanwhile.

    Celery lets go of a dead process's descriptor before it lets go of the process; an event loop that begins in between
    finds none to watch, and ends the agent over that.
    """
    for process in getattr(getattr(pool, "_pool", None), "_pool", None) or ():
        if getattr(process, "_sentinel_poll", False) is None:
            del process._sentinel_poll  # then its own descriptor is watched, which says at once that it is dead


def resume_writes(pool: Any, hub: Any) -> None:
    """Have what was being written to the processes of a prefork pool written on, after its event loop was reset.

    The loop forgets its writers; a process would wait for ever for the rest of a payload that it has half of. (To ask
    the writers themselves until they are through does harm: asked too often in vain, one ends a process that is only
    slow.)
    """
    writers = getattr(getattr(pool, "_pool", None), "_active_writers", None) or set()
    for writer in list(writers):
        try:
            hub.add_writer(inspect.getgeneratorlocals(writer)["fd"], writer)
        except (KeyError, OSError, ValueError):  # it was through, or its process is gone
            writers.discard(writer)


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
