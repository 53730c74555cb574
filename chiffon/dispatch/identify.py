"""Identify: which task, and which work, a dead letter speaks of."""

from __future__ import annotations

from chiffon.bus.postmortem import DeadLetter
from chiffon.domain.envelope import MessageEnvelope, parse_envelope
from chiffon.domain.errors import InvalidInput, MalformedMessage
from chiffon.domain.ids import derived_id, is_task_id
from chiffon.domain.values import parse


def task_of(letter: DeadLetter) -> str | None:
    """The id that the letter's task has, or would have, in the ledger; None if it names none."""
    if letter.task_id is not None:
        return letter.task_id if is_task_id(letter.task_id) else None
    envelope = _envelope(letter.body)
    if envelope is None:
        return None
    message_id = envelope.message_id or letter.properties.get("message_id")
    return envelope.task_id or (derived_id("message", str(message_id)) if message_id else None)


def work_type_of(letter: DeadLetter) -> str | None:
    """The work type that the letter names, if it can be read."""
    named = letter.headers.get("task")
    if isinstance(named, str):
        return named
    envelope = _envelope(letter.body)
    return envelope.payload.work_type if envelope else None


def _envelope(body: bytes) -> MessageEnvelope | None:
    try:
        return parse_envelope(parse(body))
    except (InvalidInput, MalformedMessage):
        return None
