"""The plain message that any AMQP client may publish: `MessageEnvelope`, protocol version 1.0."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from pydantic import BaseModel, ConfigDict, Field, ValidationError

from chiffon.domain.errors import MalformedMessage
from chiffon.domain.ids import MAX_REQUEST_ID, MAX_TASK_ID
from chiffon.domain.values import pointer_to


class Payload(BaseModel):
    """What is to be done."""

    model_config = ConfigDict(extra="forbid", frozen=True)

    work_type: Annotated[str, Field(min_length=1, max_length=200)]
    parameters: dict[str, Any] = {}


class MessageEnvelope(BaseModel):
    """Work as JSON. Ids may be absent; members that are not named here are ignored."""

    model_config = ConfigDict(extra="ignore", frozen=True, strict=True)

    protocol_version: Literal["1.0"]
    type: Literal["work_request"]
    payload: Payload
    message_id: Annotated[str, Field(min_length=1, max_length=255)] | None = None
    trace_id: str | None = None
    request_id: Annotated[str, Field(min_length=1, max_length=MAX_REQUEST_ID)] | None = None
    task_id: Annotated[str, Field(min_length=1, max_length=MAX_TASK_ID)] | None = None
    priority: Annotated[int, Field(ge=1, le=5)] | None = None


def parse_envelope(value: Any) -> MessageEnvelope:
    """The envelope that a JSON value is. Raises MalformedMessage, saying where it is not one."""
    try:
        return MessageEnvelope.model_validate(value)
    except ValidationError as found:
        told = "; ".join(f"{pointer_to(e['loc']) or 'the message'}: {e['msg']}" for e in found.errors())
        raise MalformedMessage(f"not a MessageEnvelope: {told}") from None
