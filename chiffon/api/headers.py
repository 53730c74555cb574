"""Request headers that say something: Idempotency-Key, traceparent, Prefer."""

from __future__ import annotations

import re
from typing import NoReturn

from flask import request

from chiffon.api import kinds
from chiffon.api.problems import ApiProblem, Fault
from chiffon.domain.ids import MAX_REQUEST_ID, is_request_id, trace_id_from_traceparent

IDEMPOTENCY_KEY = "Idempotency-Key"
LONGEST_WAIT = 60
"""Seconds: a longer `Prefer: wait` is cut to this."""

_TELLING = 9
"""Digits of it that are looked at."""

_QUOTED = re.compile(r'"((?:[^"\\]|\\["\\])*)"')
_WAIT = re.compile(r'wait\s*=\s*(?:"(\d+)"|(\d+))', re.IGNORECASE)


def idempotency_key() -> str | None:
    """The caller's key, quoted (a string of RFC 9651, as the IETF draft wants it) or bare. Raises ApiProblem."""
    given = request.headers.get(IDEMPOTENCY_KEY)
    if given is None:
        return None
    text = _decoded(given).strip()
    if text.startswith('"'):
        quoted = _QUOTED.fullmatch(text)
        if quoted is None:
            refuse("starts with a quote and does not end with one")
        text = re.sub(r"\\(.)", r"\1", quoted.group(1))
    if not is_request_id(text):
        refuse(f"must have 1-{MAX_REQUEST_ID} printable characters")
    return text


def refuse(what: str) -> NoReturn:
    """Raise the problem that the key is."""
    raise ApiProblem(kinds.INVALID_INPUT, f"{IDEMPOTENCY_KEY}: {what}", [Fault(header=IDEMPOTENCY_KEY, detail=what)])


def trace_id() -> str | None:
    """The trace id of `traceparent`; None without one, and for one that is malformed, as W3C Trace Context wants it."""
    given = request.headers.get("traceparent")
    return trace_id_from_traceparent(given) if given else None


def wait_seconds() -> int | None:
    """How long the caller prefers to wait for the end (RFC 7240 section 4.3), 0-60 seconds; None: not at all."""
    for preference in request.headers.get("Prefer", "").split(","):  # WSGI has joined several of them
        found = _WAIT.fullmatch(preference.partition(";")[0].strip())
        if found:
            seconds = (found[1] or found[2]).lstrip("0")
            return min(int(seconds[:_TELLING] or "0"), LONGEST_WAIT)  # of a longer one the beginning is too much, too
    return None


def _decoded(header: str) -> str:
    """A header's bytes as UTF-8 where they are: WSGI hands them over as Latin-1."""
    try:
        return header.encode("latin-1").decode()
    except UnicodeError:
        return header
