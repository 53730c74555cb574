"""Work that says when it begins and when it ends, and work that ends in every other way than well."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
from pathlib import Path
from typing import Any

from chiffon import Fail, Retry, WorkContext, work
from tests.e2e.work.diary import work_for, write


@work("test.run", timeout=120)
def run(context: WorkContext, path: str, seconds: float = 0.0) -> dict[str, Any]:
    """Write down that it begins, work for some seconds whatever anybody asks, and write down that it ends."""
    write(path, context, "begun")
    work_for(seconds)
    write(path, context, "ended")
    return {"pid": os.getpid()}


@work("test.run_long_at_first", timeout=120)
def run_long_at_first(context: WorkContext, path: str, seconds: float) -> dict[str, Any]:
    """As `test.run`, but the first attempt alone takes that long."""
    return run(context, path, seconds if context.attempt == 1 else 0.0)


@work("test.run_until_asked", timeout=120)
def run_until_asked(context: WorkContext, path: str) -> None:
    """Work until it is asked to stop, and write that down."""
    write(path, context, "begun")
    while not context.is_cancelled():
        work_for(0.1)
    write(path, context, "asked")


@work("test.give_up_when_asked", timeout=120)
def give_up_when_asked(context: WorkContext, path: str) -> None:
    """As `test.run_until_asked`, but without a result."""
    run_until_asked(context, path)
    raise Fail("it was asked to stop")


@work("test.fail_after", timeout=120)
def fail_after(context: WorkContext, path: str, seconds: float) -> None:
    """Work for some seconds, and say no."""
    write(path, context, "begun")
    work_for(seconds)
    raise Fail("meant to fail")


@work("test.retry_once", timeout=120, retries=1)
def retry_once(context: WorkContext, path: str, after: float) -> None:
    """Ask for another attempt so many seconds later, and be content with that."""
    write(path, context, context.attempt)
    if context.attempt == 1:
        raise Retry("once more", after=after)


@work("test.pass_gate", timeout=120)
def pass_gate(context: WorkContext, path: str, gate: str) -> None:
    """Say no until there is a file at ``gate``."""
    if not Path(gate).exists():
        raise Fail("the gate is closed")
    write(path, context, "passed")


@work("test.die", timeout=120)
def die(context: WorkContext, path: str, how: str) -> None:
    """Take the process along."""
    write(path, context, how)
    _DEATHS[how]()


def _exhaust_memory() -> None:
    raise MemoryError("no more of it")


_DEATHS = {
    "SIGKILL": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "segfault": lambda: ctypes.string_at(0),
    "os._exit": lambda: os._exit(1),
    "sys.exit": lambda: sys.exit("work said so"),
    "MemoryError": _exhaust_memory,
}
