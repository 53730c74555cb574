"""What can go wrong while something is measured."""

from __future__ import annotations


class RoundFailed(Exception):
    """A round gave no measurement; the message says why. It is recorded and shown, and the next round goes on."""
