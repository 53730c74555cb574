"""Keeps a command on a leash: it ends, with all its process group, when whoever started it is gone.

An agent that is killed (a hard time limit, the kernel's out-of-memory killer) cannot clean up after itself,
so somebody else has to notice. This file is run as a program between the agent and the command:

    python -I -S leash.py LINE GRACE PATH ARGV0 [ARG...]

LINE is the number of an inherited socket whose other end only the agent holds. End of file on it means that
the agent died, or let go on purpose: the command's group gets SIGTERM, and SIGKILL after GRACE seconds. What is
said on it, a line each: ``pid N`` (the process group's number too), then ``exit N`` (negative: ended by that
signal), or only ``error TEXT``.

A parent-death signal would reach the command alone and not what it started, and is Linux's own.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import sys
import time

LOOK_EVERY = 0.02
"""Seconds between two looks at a group that was asked to end: strangers' ends send no signal here."""

_PR_SET_CHILD_SUBREAPER = 36  # linux/prctl.h
_MENDABLE = signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}


def main(arguments: list[str]) -> None:
    """Start the command, wait for its end or the agent's, leave nothing of its group behind."""
    line, grace, path, argv = int(arguments[0]), float(arguments[1]), arguments[2], arguments[3:]
    os.set_inheritable(line, False)
    _adopt_orphans()
    woken = _wake_on_child()
    try:
        # An ignored signal would stay ignored in the command: pool children ignore SIGINT, Python SIGPIPE.
        pid = os.posix_spawn(path, argv, os.environ, setpgroup=0, setsigmask=(), setsigdef=_MENDABLE)
    except OSError as refused:
        _say(line, f"error {refused.strerror}")
        return
    _say(line, f"pid {pid}")
    status = None
    while status is None:
        ready, _, _ = select.select([line, woken], [], [])
        if woken in ready:
            os.read(woken, 4096)
            status = _reap(pid)
        if line in ready:
            break
    status = _end_group(pid, status, grace)
    _say(line, f"exit {os.waitstatus_to_exitcode(status)}")


def _wake_on_child() -> int:
    """A file descriptor that becomes readable when a child ends."""
    woken, wake = os.pipe()
    os.set_blocking(wake, False)
    signal.set_wakeup_fd(wake)
    signal.signal(signal.SIGCHLD, lambda *_: None)
    return woken


def _adopt_orphans() -> None:
    """Become the parent of what the command leaves behind: in a container nobody else may bury it."""
    if sys.platform == "linux":
        with contextlib.suppress(ImportError, OSError, AttributeError):
            import ctypes

            ctypes.CDLL(None).prctl(_PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def _reap(pid: int) -> int | None:
    """Bury whoever has ended. The wait status of ``pid`` if it was among them, else None."""
    found = None
    with contextlib.suppress(ChildProcessError):
        while (ended := os.waitpid(-1, os.WNOHANG))[0]:
            found = ended[1] if ended[0] == pid else found
    return found


def _end_group(group: int, status: int | None, grace: float) -> int:
    """End what is left of the group, kindly first. Gives the wait status of its leader."""
    _signal(group, signal.SIGTERM)
    _signal(group, signal.SIGCONT)  # a stopped process would sleep through the SIGTERM
    until = time.monotonic() + grace
    while time.monotonic() < until and (status is None or _signal(group, 0)):
        time.sleep(LOOK_EVERY)
        ended = _reap(group)
        status = ended if status is None else status
    _signal(group, signal.SIGKILL)
    return os.waitpid(group, 0)[1] if status is None else status


def _signal(group: int, number: int) -> bool:
    """Send a signal to all of the group; False when nobody is left in it."""
    try:
        os.killpg(group, number)
    except ProcessLookupError:
        return False
    except PermissionError:
        return number == 0  # what became another user's (sudo) cannot be ended from here
    return True


def _say(line: int, text: str) -> None:
    with contextlib.suppress(OSError):  # nobody listens: the agent is gone
        os.write(line, f"{text}\n".encode())


if __name__ == "__main__":
    main(sys.argv[1:])
