"""The deeds of both sides: plain functions, which a stock task and a work type both call. Each leaves a witness."""

from __future__ import annotations

import ctypes
import json
import os
import signal
import sys
import time
from typing import NoReturn


def sign(path: str, task_id: str, note: object = None, attempt: int = 0) -> None:
    """Write who runs it into the file at ``path``, by one write, as `tests.e2e.diary` reads it."""
    line = {"task_id": task_id, "attempt": attempt, "pid": os.getpid(), "note": note}
    file = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    try:
        os.write(file, json.dumps(line).encode() + b"\n")
    finally:
        os.close(file)


def work_for(seconds: float) -> None:
    """Be busy."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0:
        time.sleep(min(left, 0.1))


def die(how: str) -> NoReturn:
    """Take the process along, in one of the ways in which work does."""
    match how:
        case "killed":  # as the kernel does when memory ends
            os.kill(os.getpid(), signal.SIGKILL)
        case "segfault":
            ctypes.string_at(0)
        case "_exit":
            os._exit(1)
        case "exit":
            sys.exit("work said so")
        case "interrupt":
            raise KeyboardInterrupt
        case "memory":
            raise MemoryError
    raise AssertionError(f"it has outlived being {how}")
