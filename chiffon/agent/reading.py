"""Reading a delivery: everything is looked at before anything is done, and what does not fit has a reason.

Stock Celery acknowledges what it cannot decode, and so loses it, and ends the worker on some of the rest.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from typing import Any

from kombu.utils.json import loads

from chiffon.agent import fields
from chiffon.agent.run import Draft
from chiffon.bus.inflate import bounded_decompress
from chiffon.bus.letters import DOORBELL
from chiffon.domain import ids
from chiffon.domain.envelope import MessageEnvelope, parse_envelope
from chiffon.domain.errors import InvalidInput, MalformedMessage, NotJson
from chiffon.domain.idempotency import fingerprint
from chiffon.domain.tasks import NewTask
from chiffon.domain.values import canonical, parse
from chiffon.domain.work import DEFAULT_QUEUE, WorkTypes
from chiffon.ledger.condemn import UNREADABLE

_JSON_TYPES = {"", "application/json", "text/json"}
_ENCODINGS = {"", "utf-8", "utf8", "us-ascii", "ascii", "binary"}


@dataclass(frozen=True)
class Doorbell:
    """A ring of our own: what runs is the row. ``work_type``: what it says, as a hint."""

    task_id: str
    work_type: str = ""


@dataclass(frozen=True)
class Direct:
    """Work that somebody published without the API. ``anonymous``: nothing in it says whether it came before."""

    task: NewTask
    anonymous: bool = False


class Unrunnable(MalformedMessage):
    """A message of the right form that nobody can run: its task is written down, dead-lettered, for whoever waits."""

    def __init__(self, reason: str, task: NewTask) -> None:
        super().__init__(reason)
        self.task = task


@dataclass(frozen=True)
class Reader:
    """Reads deliveries. ``celery_tasks``: the names that this agent can run; ``limit``: bytes of a body, at most."""

    work_types: WorkTypes
    celery_tasks: Mapping[str, Any]
    limit: int

    def read(self, message: Any) -> Doorbell | Direct:
        """What a delivery (a kombu message) asks for. Raises MalformedMessage, Unrunnable."""
        headers = message.headers
        if not isinstance(headers, dict):
            raise MalformedMessage("the headers are no table")
        if headers.get(DOORBELL) is not None:
            return Doorbell(fields.task_id(headers.get("id")), str(headers.get("task") or ""))
        try:
            value = self._body(message, headers)
            if "task" in headers:
                return self._native(message, headers, value)
            return self._enveloped(message, value)
        except InvalidInput as error:
            raise MalformedMessage(str(error)) from None

    def remains(self, message: Any) -> NewTask | None:
        """What can be said of the task that a message which cannot be read names; None if it names none.

        Whatever that says it is, nobody may run it: its parameters are not known.
        """
        headers = message.headers
        if not isinstance(headers, dict) or "task" not in headers or headers.get(DOORBELL) is not None:
            return None
        if (task_id := fields.id_or_none(headers.get("id"))) is None:
            return None
        canvas = fields.legible_canvas(headers, self._embedded(message, headers))
        request_id, trace_id = task_id[: ids.MAX_REQUEST_ID], None
        with suppress(MalformedMessage):
            request_id = fields.request_id(headers.get("request_id"))
        with suppress(MalformedMessage):
            trace_id = fields.trace_id(headers.get("trace_id"), seed=canvas.get("root_id") or task_id)
        return NewTask(
            task_id=task_id,
            request_id=request_id,
            trace_id=trace_id or ids.new_trace_id(),
            work_type=UNREADABLE,
            fingerprint=fingerprint(UNREADABLE, None),
            canvas=canvas,
            keyed=False,
            origin="message",
        )

    def from_draft(self, draft: Draft, *, trace_id: str, parent: str) -> NewTask:
        """The task that a run's continuation is. Its parameters are validated when it is run.

        Raises InvalidInput if its form does not fit, or it was refused where it was made.
        """
        if draft.refused is not None:
            raise MalformedMessage(draft.refused)
        task = self._task(draft.headers, draft.arguments, draft.parameters, draft.embed, draft.priority)
        if task.work_type in self.work_types:
            with suppress(InvalidInput):  # else it is dead-lettered when it is run, and says why
                bound = self.work_types.get(task.work_type).bind(task.arguments, task.parameters)
                task = replace(task, arguments=[], parameters=bound)
        return replace(
            task,
            trace_id=trace_id,
            origin="canvas",
            queue=fields.queue(draft.routing_key) or task.queue,
            canvas={"parent_id": parent} | {k: v for k, v in task.canvas.items() if v is not None},
        )

    def _body(self, message: Any, headers: dict[str, Any]) -> Any:
        try:
            return parse(self._bytes(message, headers).decode())
        except UnicodeDecodeError as error:
            raise MalformedMessage(f"the body is not UTF-8: {error.reason} at byte {error.start}") from None
        except NotJson as error:
            raise MalformedMessage(f"the body is {error}") from None

    def _embedded(self, message: Any, headers: dict[str, Any]) -> Any:
        """The third item of a body that may hold, in the others, what the ledger cannot keep; None if there is none."""
        with suppress(MalformedMessage, ValueError, RecursionError):
            value = json.loads(self._bytes(message, headers).decode())
            return value[2] if isinstance(value, list) and len(value) == 3 else None
        return None

    def _bytes(self, message: Any, headers: dict[str, Any]) -> bytes:
        content_type = str(message.content_type or "").partition(";")[0].strip().lower()
        if content_type not in _JSON_TYPES:
            raise MalformedMessage(f"the content type is {message.content_type!r}: only application/json is work")
        if str(message.content_encoding or "").lower() not in _ENCODINGS:
            raise MalformedMessage(f"the content encoding is {message.content_encoding!r}: only utf-8 is work")
        body = message.body.encode() if isinstance(message.body, str) else bytes(message.body or b"")
        if compression := headers.get("compression"):
            body = bounded_decompress(body, compression, self.limit)
        if len(body) > self.limit:
            raise MalformedMessage(f"the body has {len(body)} bytes, more than CHIFFON_MAX_MESSAGE ({self.limit})")
        return body

    def _enveloped(self, message: Any, value: Any) -> Direct:
        envelope = parse_envelope(value)
        message_id = envelope.message_id or fields.id_or_none(message.properties.get("message_id"))
        known = envelope.task_id or (ids.derived_id("message", message_id) if message_id else None)
        task = NewTask(
            task_id=fields.task_id(known or ids.new_task_id()),
            request_id=fields.request_id(envelope.request_id or (known or ids.new_request_id())[: ids.MAX_REQUEST_ID]),
            trace_id=fields.trace_id(envelope.trace_id),
            work_type=envelope.payload.work_type,
            fingerprint="",
            parameters=envelope.payload.parameters,
            priority=envelope.priority or fields.priority(message.properties.get("priority")),
            keyed=envelope.request_id is not None,
            origin="message",
        )
        return Direct(self._fitting(task, envelope), anonymous=known is None)

    def _native(self, message: Any, headers: dict[str, Any], body: Any) -> Direct:
        if not isinstance(body, list) or len(body) != 3:
            raise MalformedMessage("the body of a Celery message is a list of three: arguments, parameters, embedded")
        arguments, parameters, embed = body
        task = self._task(headers, arguments, parameters, embed, message.properties.get("priority"))
        return Direct(self._fitting(replace(task, origin="message"), None))

    def _task(self, headers: dict[str, Any], arguments: Any, parameters: Any, embed: Any, priority: Any) -> NewTask:
        """A NewTask from Celery's protocol 2. Raises InvalidInput, MalformedMessage."""
        task_id = fields.task_id(headers.get("id"))
        name = headers.get("task")
        if not isinstance(name, str) or not 1 <= len(name) <= 200 or not name.isprintable():
            raise MalformedMessage("the task's name is no printable text of 1-200 characters")
        if not isinstance(arguments, list) or not isinstance(parameters, dict):
            raise MalformedMessage("the arguments are no list, or the parameters no object")
        request_id = headers.get("request_id")
        hard, soft = fields.limits(headers.get("timelimit"))
        queue = self.work_types.get(name).queue if name in self.work_types else DEFAULT_QUEUE
        return NewTask(
            task_id=task_id,
            request_id=fields.request_id(request_id if request_id is not None else task_id[: ids.MAX_REQUEST_ID]),
            trace_id=fields.trace_id(headers.get("trace_id"), seed=fields.optional_id(headers, "root_id") or task_id),
            work_type=name,
            fingerprint=fingerprint(name, [arguments, parameters]),
            parameters=parameters,
            arguments=arguments,
            canvas=fields.canvas(headers, embed),
            priority=fields.priority(priority),
            queue=queue,
            timeout=hard,
            soft_timeout=soft,
            run_at=fields.moment(headers.get("eta"), "eta"),
            expires_at=fields.moment(headers.get("expires"), "expires"),
            keyed=request_id is not None,
        )

    def _fitting(self, task: NewTask, envelope: MessageEnvelope | None) -> NewTask:
        """The task with bound, validated parameters. Raises Unrunnable."""
        if task.work_type in self.work_types:
            work_type = self.work_types.get(task.work_type)
            try:
                parameters = work_type.bind(task.arguments, task.parameters)
                same = fingerprint(work_type.name, work_type.canonical(parameters))
            except InvalidInput as error:
                raise Unrunnable(str(error), replace(task, fingerprint=fingerprint(task.work_type, None))) from None
            return replace(task, parameters=parameters, arguments=[], fingerprint=same, queue=work_type.queue)
        if envelope is None and task.work_type in self.celery_tasks:
            try:
                revived([task.arguments, task.parameters])
            except Exception as error:  # noqa: BLE001 -- whatever kombu's decoders raise on a mark that is not one
                raise Unrunnable(f"the arguments cannot be decoded: {error!r}"[:1000], task) from None
            return task
        try:
            self.work_types.get(task.work_type)
        except InvalidInput as error:
            raise Unrunnable(str(error), replace(task, fingerprint=fingerprint(task.work_type, None))) from None
        return task


def revived(value: Any) -> Any:
    """JSON values with Celery's own markers (dates, UUIDs, decimals) turned back into what they were."""
    return loads(canonical(value))
