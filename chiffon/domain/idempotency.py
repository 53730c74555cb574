"""When two dispatches are the same: the fingerprint of what was asked for."""

from __future__ import annotations

import hashlib

from chiffon.domain.values import canonical


def fingerprint(work_type: str, parameters: object) -> str:
    """The SHA-256 (hex) of a work type and its canonical parameters: 64 characters; nothing else counts."""
    return hashlib.sha256(canonical([work_type, parameters]).encode()).hexdigest()
