"""A stack in the foreground: up, watched, and down again on Ctrl-C, a signal or a failure."""

from __future__ import annotations

import os
import signal
import time
from collections.abc import Callable, Mapping
from pathlib import Path
from types import FrameType

from chiffon.devstack.errors import DevstackError
from chiffon.devstack.programs import Access
from chiffon.devstack.screen import Screen
from chiffon.devstack.stack import Stack

HOME = Path(".chiffon")


class Stopped(BaseException):
    """The user, or a signal, asked for the end. No Exception, so that nothing on the way swallows it."""


def stay_up(environ: Mapping[str, str], screen: Screen, *, parent: int | None) -> None:
    """Keep a stack up until it is asked to stop; with ``parent``, also until that process is no longer ours.

    Raises DevstackError when the stack does not come up, or when one of its processes ends.
    """

    def watch(stack: Stack, access: Access) -> None:
        screen.table("Chiffon is up", ["", "URL"], describe_access(access))
        screen.say("For a shell beside this one:  . .chiffon/env")
        screen.say("Ctrl-C stops it; what is in it goes with it.")
        while parent is None or os.getppid() == parent:
            stack.check()
            time.sleep(0.2)

    with_stack(environ, screen, watch)


def with_stack(environ: Mapping[str, str], screen: Screen, use: Callable[[Stack, Access], None]) -> None:
    """Bring a stack up, ``use`` it, take it down. A signal ends the use, and is no error. Raises DevstackError."""
    stack = Stack(HOME, environ, screen)
    signals = {signal.SIGINT, signal.SIGTERM}
    if signal.getsignal(signal.SIGHUP) is not signal.SIG_IGN:  # else nohup wants it to stay up
        signals.add(signal.SIGHUP)
    handlers = {number: signal.signal(number, _stop) for number in signals}
    try:
        use(stack, stack.up())
    except Stopped:
        screen.say("Stopping")
    except DevstackError:
        screen.say(f"Stopping; the logs are in {stack.folder}")
        raise
    finally:
        _take_down(stack)
        for number, handler in handlers.items():
            signal.signal(number, handler)
    stack.forget()


def describe_access(access: Access) -> list[list[str]]:
    """Return the table of what can be reached, and how."""
    return [
        ["API", access.api_url],
        ["API description", f"{access.api_url}/docs"],
        ["API key", access.api_key],
        ["Flower", access.flower_url],
        ["Flower login", access.flower_auth],
        ["RabbitMQ", access.broker_url],
        ["Postgres", access.database_url],
    ]


def _take_down(stack: Stack) -> None:
    try:
        stack.down()
    except Stopped:
        pass  # asked twice: what has not ended by itself is ended now
    finally:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)
        stack.close()


def _stop(number: int, frame: FrameType | None) -> None:
    raise Stopped
