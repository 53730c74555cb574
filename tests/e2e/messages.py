"""Messages as a foreign program would publish them: good ones, and every kind of bad one that the scenarios try."""

from __future__ import annotations

import json
import uuid
import zlib
from dataclasses import dataclass, field
from typing import Any

from tests.e2e.raw_amqp import RawAmqp

AS_JSON = {"content_type": "application/json", "content_encoding": "utf-8"}


@dataclass(frozen=True)
class Bad:
    """A message that is no work. ``properties``: by their AMQP names, without the headers."""

    what: str
    body: bytes
    properties: dict[str, Any] = field(default_factory=lambda: dict(AS_JSON))
    headers: dict[str, Any] = field(default_factory=dict)

    def publish(self, client: RawAmqp) -> None:
        """Send it to `work_queue`."""
        client.publish(self.body, headers=self.headers, **self.properties)


def envelope(work_type: str, parameters: dict[str, Any], **members: Any) -> dict[str, Any]:
    """Return a plain `MessageEnvelope`; ``members`` are added, or replace what is there."""
    plain = {
        "protocol_version": "1.0",
        "type": "work_request",
        "message_id": str(uuid.uuid4()),
        "payload": {"work_type": work_type, "parameters": parameters},
    }
    return plain | members


def malformed() -> list[Bad]:
    """Return bytes that cannot be taken for JSON."""
    good = json.dumps(envelope("echo", {"input": 1})).encode()
    return [
        Bad("no JSON", b"{not json"),
        Bad("bad UTF-8", b'{"input": "\xff\xfe"}'),
        Bad("unknown content encoding", good, AS_JSON | {"content_encoding": "ebcdic"}),
        Bad("unknown content type", good, AS_JSON | {"content_type": "application/x-python-serialize"}),
        Bad("a compressed bomb", zlib.compress(bytes(100_000_000)), headers={"compression": "application/x-gzip"}),
        Bad("compressed by nothing known", good, headers={"compression": "application/x-none-such"}),
        Bad("compressed, it says", good, headers={"compression": "application/x-gzip"}),
        Bad("an empty body", b""),
        Bad("an empty body without properties", b"", {}),
        Bad("no JSON behind Celery's headers", b"\x80\x04", headers={"task": "echo", "id": str(uuid.uuid4())}),
    ]


def ill_formed() -> list[Bad]:
    """Return JSON that is neither an envelope nor a Celery message that could be run."""
    return [*_no_envelopes(), *_no_celery_messages()]


def _no_envelopes() -> list[Bad]:
    work = {"work_type": "echo", "parameters": {"input": 1}}
    bad: dict[str, Any] = {
        "null": None,
        "a number": 42,
        "a text": "echo",
        "a list": [],
        "an empty object": {},
        "another type": envelope("echo", {"input": 1}, type="work_response"),
        "a type that is no text": envelope("echo", {"input": 1}, type=["work_request"]),
        "another version": envelope("echo", {"input": 1}, protocol_version="2.0"),
        "a version that is a number": envelope("echo", {"input": 1}, protocol_version=1.0),
        "no payload": {name: value for name, value in envelope("echo", {}).items() if name != "payload"},
        "no work type": envelope("echo", {}, payload={"parameters": {"input": 1}}),
        "a work type that is an object": envelope("echo", {}, payload=work | {"work_type": {}}),
        "an unknown work type": envelope("no.such.work", {"input": 1}),
        "parameters that are a list": envelope("echo", {}, payload=work | {"parameters": [1]}),
        "a parameter missing": envelope("echo", {}),
        "a parameter too many": envelope("echo", {"input": 1, "output": 2}),
        "a parameter of the wrong type": envelope("slow_echo", {"input": 1, "seconds": "long"}),
        "a priority beyond the last": envelope("echo", {"input": 1}, priority=6),
        "a priority that is true": envelope("echo", {"input": 1}, priority=True),
        "a request_id too long": envelope("echo", {"input": 1}, request_id="x" * 201),
        "a request_id that is a number": envelope("echo", {"input": 1}, request_id=7),
        "a task_id that is an object": envelope("echo", {"input": 1}, task_id={}),
        "a trace_id that is none": envelope("echo", {"input": 1}, trace_id="xyz"),
    }
    unkept = {
        "NUL": '{"input": "\\u0000"}',
        "a lone surrogate": '{"input": "\\ud800"}',
        "NaN": '{"input": NaN}',
        "an absurd depth": '{"input": ' + "[" * 5000 + "]" * 5000 + "}",
    }
    good = json.dumps(envelope("echo", {"input": "HERE"}))
    return [
        *(Bad(what, json.dumps(value).encode()) for what, value in bad.items()),
        *(Bad(what, good.replace('{"input": "HERE"}', text).encode()) for what, text in unkept.items()),
    ]


def _no_celery_messages() -> list[Bad]:
    def celery(what: str, body: Any = ([], {"input": 1}, None), **headers: Any) -> Bad:
        complete = {"task": "echo", "id": str(uuid.uuid4()), "lang": "py", "root_id": "root"} | headers
        present = {name: value for name, value in complete.items() if value != "ABSENT"}
        return Bad(what, json.dumps(body).encode(), headers=present)

    return [
        celery("no id", id="ABSENT"),
        celery("an id that is null", id=None),
        celery("an unhashable id", id={"a": 1}),
        celery("an id that is a list", id=["a"]),
        celery("an unhashable name", task={"a": 1}),
        celery("a name that is a list", task=["echo"]),
        celery("an unknown name", task="no.such.task"),
        celery("a body that is an object", {"args": []}),
        celery("a body of two", [[], {}]),
        celery("a body of four", [[], {}, None, None]),
        celery("a body that is null", None),
        celery("arguments that are an object", [{}, {"input": 1}, None]),
        celery("parameters that are a list", [[], [], None]),
        celery("something embedded that is a text", [[], {"input": 1}, "callbacks"]),
        celery("callbacks that are no signatures", [[], {"input": 1}, {"callbacks": [7]}]),
        celery("a chord that is a list", [[], {"input": 1}, {"chord": [1]}]),
        celery("parameters that do not fit", [[], {"output": 1}, None]),
        celery("a time limit that is a number", timelimit=7),
        celery("stamped headers that are a number", stamped_headers=7),
        celery("an eta that is none", eta="tomorrow"),
        celery("an expiry that is none", expires={"a": 1}),
        celery("a group that is an object", group={"a": 1}),
    ]
