"""One decorator a view: it reads what the view takes, writes what it gives, and keeps both for the OpenAPI."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass
from functools import wraps
from typing import Any
from wsgiref.types import WSGIEnvironment

from flask import Response, request
from pydantic import BaseModel
from werkzeug.datastructures import Headers

from chiffon.api.kinds import Kind
from chiffon.api.reading import check_size, read_body, read_query

View = Callable[..., "Reply | Text"]

JSON = "application/json"


@dataclass(frozen=True)
class Reply:
    """What a view answers: JSON, or nothing."""

    body: BaseModel | None
    status: int = 200
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Text:
    """What a view answers that is not JSON: all of it, or as it comes."""

    body: str | bytes | Iterable[str]
    media_type: str
    headers: Mapping[str, str] | None = None


@dataclass(frozen=True)
class Header:
    """A request header that the operation reads."""

    name: str
    description: str
    schema: Mapping[str, Any]


@dataclass(frozen=True)
class Operation:
    """What the OpenAPI says of a view.

    ``gives``: by status, the model (str: text; None: nothing) and what it means. ``media_types``: what it may come as.
    ``problems``: its own, beside those of every operation with such inputs. ``is_open``: it asks for no key, and takes
    any query.
    """

    gives: Mapping[int, tuple[type[BaseModel] | type[str] | None, str]]
    body: type[BaseModel] | None = None
    query: type[BaseModel] | None = None
    headers: tuple[Header, ...] = ()
    answer_headers: Mapping[int, Mapping[str, str]] | None = None
    problems: tuple[Kind, ...] = ()
    is_open: bool = False
    media_types: tuple[str, ...] = (JSON,)


class _NoQuery(BaseModel):
    """No query parameters at all."""

    model_config = {"extra": "forbid"}


def operation(about: Operation) -> Callable[[View], Callable[..., Response]]:
    """Make a view of a function that takes ``body`` and ``query`` as their models and returns a Reply, or a Text."""

    def decorate(view: View) -> Callable[..., Response]:
        @wraps(view)
        def read_ask_and_answer(**arguments: Any) -> Response:
            check_size()
            if about.query is not None:
                arguments["query"] = read_query(about.query)
            elif request.query_string and not about.is_open:
                read_query(_NoQuery)
            if about.body is not None:
                arguments["body"] = read_body(about.body)
            return _written(view(**arguments))

        read_ask_and_answer.operation = about  # type: ignore[attr-defined]
        return read_ask_and_answer

    return decorate


class _Written(Response):
    """An answer of which every header is there, and ASCII: nobody need look through them for what to mend or to add."""

    def get_wsgi_headers(self, environ: WSGIEnvironment) -> Headers:
        """Those that it has. (werkzeug's own copies them, and takes each URL apart and together again.)"""
        return self.headers


def _written(reply: Reply | Text) -> Response:
    if isinstance(reply, Text):
        return Response(reply.body, headers=reply.headers, content_type=reply.media_type)
    if reply.body is None:
        empty = Response(status=reply.status, headers=reply.headers)
        del empty.headers["Content-Type"]
        return empty
    text = reply.body.model_dump_json(by_alias=True)
    return _Written(text, reply.status, reply.headers, content_type=JSON)
