"""Hands on the pool's processes, where Celery has none: killing one, and ending what is being said to one or by one."""

from __future__ import annotations

import inspect
import os
import signal
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
