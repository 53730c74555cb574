"""Every error leaves as `application/problem+json`: RFC 9457, one shape, no stack trace."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from http import HTTPStatus
from typing import Annotated, Any
from urllib.parse import quote

import structlog
from flask import Flask, Response, request
from pydantic import BaseModel, ConfigDict, Field
from werkzeug.exceptions import HTTPException
from werkzeug.wrappers import Response as AnyResponse

from chiffon.api import kinds
from chiffon.api.kinds import Kind
from chiffon.domain.errors import ChiffonError, InvalidInput, LedgerUnavailable, OutcomeUnknown, SchemaBehind

log = structlog.get_logger(__name__)

CONTENT_TYPE = "application/problem+json"
_MOST = 100
"""Faults that one problem lists."""

_OF_STATUS = {
    404: kinds.NOT_FOUND,
    405: kinds.METHOD_NOT_ALLOWED,
    413: kinds.BODY_TOO_LARGE,
    415: kinds.UNSUPPORTED_MEDIA_TYPE,
}


Elsewhere = Annotated[str | None, Field(exclude_if=lambda place: place is None)]
"""Left out of the answer when the fault is at another kind of place."""


class Fault(BaseModel):
    """One thing wrong, and where."""

    model_config = ConfigDict(frozen=True)

    detail: str = Field(description="What is wrong, and what would be right.")
    pointer: Elsewhere = Field(default=None, description="Where in the body: a JSON Pointer (RFC 6901).")
    parameter: Elsewhere = Field(default=None, description="Which query parameter.")
    header: Elsewhere = Field(default=None, description="Which header.")


class Problem(BaseModel):
    """What went wrong (RFC 9457). Further members depend on the type."""

    model_config = ConfigDict(extra="allow")

    type: str = Field(description="The kind of problem: a path that never changes, and has a page here.")
    title: str = Field(description="The kind, in words.")
    status: int = Field(description="The HTTP status.")
    detail: str = Field(description="What happened this time, and what to do.")
    instance: str = Field(description="The path that was asked for.")
    errors: list[Fault] = Field(
        default_factory=list, description="Each fault of the request, up to 100.", exclude_if=lambda faults: not faults
    )


class ApiProblem(Exception):
    """A problem to answer with. ``extensions`` are further members, ``headers`` further HTTP headers."""

    def __init__(
        self,
        kind: Kind,
        detail: str,
        faults: Sequence[Fault] = (),
        *,
        extensions: Mapping[str, Any] | None = None,
        headers: Mapping[str, str] | None = None,
    ) -> None:
        super().__init__(detail)
        self.kind = kind
        self.faults = faults
        self.extensions = dict(extensions or {})
        self.headers = dict(headers or {})

    @classmethod
    def of(cls, error: ChiffonError, *, prefix: str = "", extensions: Mapping[str, Any] | None = None) -> ApiProblem:
        """The problem that an error of the domain is. ``prefix``: the pointer of what it speaks of, in the body."""
        found = error.problems if isinstance(error, InvalidInput) else ()
        faults = [Fault(pointer=prefix + problem.pointer, detail=problem.detail) for problem in found]
        more = dict(extensions or {})
        if isinstance(error, OutcomeUnknown):
            more = {"outcome": "unknown", "task_id": error.task_id, "request_id": error.request_id} | more
        kind = kinds.kind_of(error)
        # What Postgres says of itself (hosts, users) is for the log.
        hidden = isinstance(error, LedgerUnavailable) and not isinstance(error, OutcomeUnknown | SchemaBehind)
        return cls(kind, kind.advice if hidden else str(error), faults, extensions=more)

    def problem(self) -> Problem:
        """What the answer says."""
        return Problem(
            type=self.kind.uri,
            title=self.kind.title,
            status=self.kind.status,
            detail=str(self),
            instance=quote(request.script_root + request.path),
            errors=list(self.faults[:_MOST]),
            **self.extensions,
        )

    def response(self) -> Response:
        """The answer."""
        if self.kind.retry_after is not None:
            self.headers.setdefault("Retry-After", str(self.kind.retry_after))
        text = json.dumps(self.problem().model_dump(mode="json"))
        return Response(text, status=self.kind.status, headers=self.headers, content_type=CONTENT_TYPE)


def install(app: Flask) -> None:
    """Answer every error of ``app`` with a problem."""
    app.register_error_handler(ApiProblem, lambda problem: problem.response())
    app.register_error_handler(ChiffonError, _on_domain_error)
    app.register_error_handler(HTTPException, _on_http_error)
    app.register_error_handler(Exception, _on_anything)


def _on_domain_error(error: ChiffonError) -> Response:
    problem = ApiProblem.of(error)
    if problem.kind is kinds.INTERNAL_ERROR:
        return _on_anything(error)
    if problem.kind.status >= 500:
        log.warning("refused", problem=problem.kind.name, reason=str(error))
    return problem.response()


def _on_http_error(error: HTTPException) -> AnyResponse:
    """What Flask and Werkzeug raise by themselves, their headers (`Allow`) kept."""
    status = error.code or 500
    if error.response is not None or status < 400:
        return error.get_response(request.environ)  # such as a redirect
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    kind = _OF_STATUS.get(status, Kind("", status, phrase, ""))
    headers = {name: value for name, value in error.get_headers() if name.lower() != "content-type"}
    detail = kind.advice or error.description or phrase
    return ApiProblem(kind, detail, headers=headers).response()


def _on_anything(error: Exception) -> Response:
    log.exception("internal_error", exc_info=error)
    return ApiProblem(kinds.INTERNAL_ERROR, kinds.INTERNAL_ERROR.advice).response()
