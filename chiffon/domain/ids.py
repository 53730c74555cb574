"""Ids: how each is made, and what it must look like."""

from __future__ import annotations

import hashlib
import os
import re
import time
import uuid

NAMESPACE = uuid.UUID("6b1cf0a5-2b5e-5c8e-9b65-0c5f0f0f9d43")
"""The namespace of every id that Chiffon derives (UUIDv5, RFC 9562 section 5.5)."""

_TRACE = re.compile(r"[0-9a-f]{32}")
# Version ff is forbidden, a parent of zeros invalid, and only a version after 00 may say more.
_TRACEPARENT = re.compile(r"(?!ff)(?!00.{53}-)[0-9a-f]{2}-([0-9a-f]{32})-(?!0{16})[0-9a-f]{16}-[0-9a-f]{2}(-.*)?")
_AT_ONCE = 256
MAX_TASK_ID = 255
MAX_REQUEST_ID = 200


def new_task_id() -> str:
    """A UUIDv7 (RFC 9562 section 5.7)."""
    return _uuid(_in_order(), version=7)


def new_request_id() -> str:
    """A UUIDv7 as well, for callers who bring no idempotency key."""
    return _uuid(_in_order(), version=7)


def new_trace_id() -> str:
    """32 hex digits, of which the last 20 are random (W3C Trace Context Level 2 asks for the last 14)."""
    return _in_order()


def derived_id(*parts: str) -> str:
    """The same UUID (UUIDv5) for the same parts, every time: a redelivered message finds its own row.

    They may be what somebody has sent: py-amqp makes surrogates of some bytes that are no text.
    """
    text = "\x00".join(parts).encode(errors="surrogatepass")
    return _uuid(hashlib.sha1(NAMESPACE.bytes + text, usedforsecurity=False).hexdigest(), version=5)


def _in_order() -> str:
    """32 hex digits: 48 bits of the time, in milliseconds, and 80 random ones.

    New rows are neighbours in each index, then: each step of a task writes to all of them, and of random ids each would
    find a page of its own.
    """
    return f"{time.time_ns() // 1_000_000:012x}{_drawn()}"


def _drawn() -> str:
    """20 random hex digits, of many that are drawn at once: each call of the system lets other threads go first."""
    try:
        return _digits.pop()
    except IndexError:
        drawn = os.urandom(10 * _AT_ONCE).hex()
        _digits.extend(drawn[at : at + 20] for at in range(20, len(drawn), 20))
        return drawn[:20]


_digits: list[str] = []
os.register_at_fork(after_in_child=_digits.clear)  # else a child would make its parent's ids


def _uuid(digits: str, *, version: int) -> str:
    """A UUID of the first 32 hex digits; those of the version and the variant are overwritten (RFC 9562 section 4).

    Of a task some are made, and `uuid.UUID` makes an object of each first.
    """
    variant = "89ab"[int(digits[16], 16) & 0x3]
    return f"{digits[:8]}-{digits[8:12]}-{version}{digits[13:16]}-{variant}{digits[17:20]}-{digits[20:32]}"


def trace_id_from(text: str) -> str | None:
    """``text`` (32 hex digits, or a UUID) as a trace id, or None if it is neither, or all zero."""
    digits = text.lower()
    if len(digits) == 36 and digits[8] == digits[13] == digits[18] == digits[23] == "-":
        digits = digits.replace("-", "")
    return digits if _TRACE.fullmatch(digits) and digits.strip("0") else None


def trace_id_from_traceparent(header: str) -> str | None:
    """The trace id of a ``traceparent`` header (W3C Trace Context section 3.2), or None if the header is malformed."""
    match = _TRACEPARENT.fullmatch(header.strip().lower())
    return trace_id_from(match.group(1)) if match else None


def is_request_id(text: str) -> bool:
    """Whether ``text`` has 1-200 characters, all printable."""
    return 1 <= len(text) <= MAX_REQUEST_ID and text.isprintable()


def is_task_id(text: str) -> bool:
    """Whether ``text`` may name a task: 1-255 printable characters, as Celery's own ids may be."""
    return 1 <= len(text) <= MAX_TASK_ID and text.isprintable()


def is_uuid(text: str) -> bool:
    """Whether ``text`` is a UUID in its canonical form."""
    try:
        return str(uuid.UUID(text)) == text.lower()
    except ValueError:
        return False
