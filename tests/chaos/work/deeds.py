"""Work of every kind that agents meet: short and long, flaky, failing, deadly, and work that starts more work.

Each run writes lines into the file that ``CHAOS_WITNESS`` names: when it begins, that it is still there, and when it
ends. Nothing of Chiffon reads or writes that file.
"""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import Any

from celery import chain, chord, current_app
from celery.canvas import Signature

from chiffon import Fail, RetryPolicy, WorkContext, work
from chiffon.agent.run import current

AGENT = os.getpid()
"""The main process: this module is imported before it forks its pool."""

_SIGN_EVERY = 0.2
_PATIENT = RetryPolicy(base=1, ceiling=4)


@work("chaos.note", timeout=60)
def note(context: WorkContext, seconds: float = 0.0) -> dict[str, Any]:
    """Work for some seconds."""
    witness = _Witness(context)
    witness.work_for(seconds)
    return witness.end()


@work("chaos.quick", timeout=60)
def quick(context: WorkContext) -> dict[str, Any]:
    """Be done at once: what is known to be short goes to a process together with its like."""
    return _Witness(context).end()


@work("chaos.flaky", timeout=60, retries=3, backoff=RetryPolicy(base=0.5, ceiling=2))
def flaky(context: WorkContext, failures: int, seconds: float = 0.0) -> dict[str, Any]:
    """Fail so many times before the work is done. There are three retries."""
    witness = _Witness(context)
    witness.work_for(seconds)
    if witness.retries < failures:
        witness.end()
        raise RuntimeError(f"retry {witness.retries} of a flaky one fails")
    return witness.end()


@work("chaos.fail", timeout=60)
def fail(context: WorkContext) -> None:
    """Say no."""
    _Witness(context).end()
    raise Fail("meant to fail")


@work("chaos.die", timeout=60)
def die(context: WorkContext, how: str, times: int, after: float = 0.1) -> dict[str, Any]:
    """End the process that runs it, at the first so many attempts; ``after``: seconds, none for at once."""
    witness = _Witness(context)
    witness.work_for(after)
    if context.attempt <= times:
        _DEATHS[how]()
    return witness.end()


@work("chaos.slow", timeout=60)
def slow(context: WorkContext, seconds: float, stubborn: bool = False) -> dict[str, Any]:
    """Work for long; stop when it was cancelled, unless it is stubborn."""
    witness = _Witness(context)
    until = time.monotonic() + seconds
    while time.monotonic() < until and (stubborn or not context.is_cancelled()):
        witness.work_for(0.2)
    return witness.end()


# What is started in the middle of a run is published then and there; what follows from that is the ledger's. A run that
# is repeated starts another line, so each has a key of its own.


@work("chaos.chain", timeout=60, retries=8, backoff=_PATIENT)
def start_chain(context: WorkContext, steps: int, broken: bool = False) -> dict[str, Any]:
    """Start a chain of steps; a broken one fails in its middle, and has an errback."""
    witness = _Witness(context)
    links = [_signature("chaos.step", key=witness.key, number=number) for number in range(1, steps + 1)]
    if broken:
        links.insert(1, _signature("chaos.broken_step", key=witness.key))
    chain(links).apply_async(link_error=_signature("chaos.errback", key=witness.key))
    return witness.end()


@work("chaos.chord", timeout=60, retries=8, backoff=_PATIENT)
def start_chord(context: WorkContext, parts: int) -> dict[str, Any]:
    """Start a chord."""
    witness = _Witness(context)
    numbers = range(1, parts + 1)
    header = [_signature("chaos.step", key=witness.key, number=number, previous=None) for number in numbers]
    chord(header)(_signature("chaos.gather", key=witness.key))
    return witness.end()


@work("chaos.step", timeout=60)
def step(context: WorkContext, previous: Any = None, key: str = "", number: int = 0) -> dict[str, Any]:
    """One step of a chain, or part of a chord; ``key`` names which."""
    witness = _Witness(context, step=f"{key} step {number}")
    witness.work_for(0.1)
    return witness.end(number=number)


@work("chaos.broken_step", timeout=60)
def broken_step(context: WorkContext, previous: Any = None, key: str = "") -> None:
    """The step that fails."""
    _Witness(context, step=f"{key} broken").end()
    raise Fail("a broken step")


@work("chaos.errback", timeout=60)
def errback(context: WorkContext, failed: Any = None, key: str = "") -> dict[str, Any]:
    """What follows from a failure."""
    return _Witness(context, step=f"{key} errback").end()


@work("chaos.gather", timeout=60)
def gather(context: WorkContext, parts: Any = None, key: str = "") -> dict[str, Any]:
    """The body of a chord: all its parts, each once."""
    return _Witness(context, step=f"{key} gather").end(numbers=[part["number"] for part in parts])


def _signature(name: str, **parameters: Any) -> Signature:
    return current_app.signature(name, kwargs=parameters)


class _Witness:
    """Writes down one run."""

    def __init__(self, context: WorkContext, step: str = "") -> None:
        run = current()
        assert run is not None
        self.retries = run.retries
        self.key = f"{context.task_id} {run.execution}"
        self._facts = {
            "task_id": context.task_id,
            "execution": run.execution,
            "incarnation": run.incarnation,
            "agent": AGENT,
            "pid": os.getpid(),
            "step": step,
        }
        self._write("begin")

    def work_for(self, seconds: float) -> None:
        """Be busy, and say from time to time that this is still going on."""
        until = time.monotonic() + seconds
        while (left := until - time.monotonic()) > 0:
            time.sleep(min(left, _SIGN_EVERY))
            self._write("sign")

    def end(self, **more: Any) -> dict[str, Any]:
        """Write the last line; the result of the run."""
        self._write("end")
        return {"execution": self._facts["execution"], "agent": AGENT, **more}

    def _write(self, what: str) -> None:
        """Append one line by one write, so that the lines of two processes cannot mix."""
        line = json.dumps({"at": time.time(), "what": what, **self._facts})
        file = os.open(os.environ["CHAOS_WITNESS"], os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
        try:
            os.write(file, line.encode() + b"\n")
        finally:
            os.close(file)


def _exhaust_memory() -> None:
    raise MemoryError("no more of it")


_DEATHS = {
    "exit": lambda: os._exit(7),
    "kill": lambda: os.kill(os.getpid(), signal.SIGKILL),
    "sys.exit": lambda: sys.exit(3),
    "memory": _exhaust_memory,
    "segfault": lambda: ctypes.string_at(0),
}
