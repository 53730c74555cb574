"""What can go wrong while a stack is brought up; each says what to do."""

from __future__ import annotations


class DevstackError(Exception):
    """The root of what the devstack raises on purpose."""


class MissingProgram(DevstackError):
    """A program that the stack needs is not installed."""


class ProcessFailed(DevstackError):
    """A process ended, or was not ready in time; the message ends with its last log lines."""


class NotAllowed(DevstackError):
    """Something must be installed and this user may not; the message holds the command to run."""
