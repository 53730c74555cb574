"""Work that leaves a witness: each run writes a line into a file that nothing of Chiffon reads or writes."""

from __future__ import annotations

import json
import os
import time
from typing import Any

from chiffon import Retry, WorkContext, work


@work("test.append", timeout=60)
def append(context: WorkContext, path: str, note: Any = None, seconds: float = 0.0) -> dict[str, Any]:
    """Write who runs it into the file at path, work for some seconds, and give back the note."""
    write(path, context, note)
    work_for(seconds)
    return {"note": note, "pid": os.getpid()}


@work("test.append_slow_at_first", timeout=60)
def append_slow_at_first(context: WorkContext, path: str) -> dict[str, Any]:
    """Write a line at each attempt; the first takes long enough to be killed in its middle."""
    write(path, context, None)
    work_for(30 if context.attempt == 1 else 0)
    return {"pid": os.getpid()}


@work("test.append_at_second_attempt", timeout=60, retries=2)
def append_at_second_attempt(context: WorkContext, path: str) -> dict[str, Any]:
    """Write a line at each attempt, and ask for another after the first."""
    write(path, context, None)
    if context.attempt == 1:
        raise Retry("once more", after=0.1)
    return {"attempt": context.attempt, "trace_id": context.trace_id, "request_id": context.request_id}


@work("test.finish_at", timeout=60)
def finish_at(at: float, note: Any = None) -> Any:
    """Work until a moment, in seconds since the epoch, so that many runs end at once; give back the note."""
    work_for(at - time.time())
    return note


def write(path: str, context: WorkContext, note: Any) -> None:
    """Append one line by one write, so that the lines of two processes cannot mix."""
    line = {"task_id": context.task_id, "attempt": context.attempt, "pid": os.getpid(), "note": note}
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def work_for(seconds: float) -> None:
    """Be busy for some seconds."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))
