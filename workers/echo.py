"""Work that gives back what it was given: for tests, demonstrations and first steps."""

from __future__ import annotations

import time
from typing import Any

from chiffon import Fail, WorkContext, work


@work("echo", timeout=30)
def echo(input: Any) -> dict[str, Any]:  # noqa: A002  -- the name is part of the contract
    """Give back the input."""
    return {"output": input}


@work("slow_echo")
def slow_echo(context: WorkContext, input: Any, seconds: float = 5.0) -> dict[str, Any]:  # noqa: A002
    """Give back the input after some seconds, unless somebody cancels."""
    until = time.monotonic() + seconds
    while (left := until - time.monotonic()) > 0 and not context.is_cancelled():
        time.sleep(min(left, 0.5))
    if context.is_cancelled():
        raise Fail("cancelled before the time was over")
    return {"output": input}


@work("fail")
def fail(message: str = "asked to fail") -> None:
    """Fail with the message: the test agent of error paths."""
    raise Fail(message)
