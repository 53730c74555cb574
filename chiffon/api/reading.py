"""Reading a request: strictly, with the place of everything that does not fit."""

from __future__ import annotations

import contextlib
import difflib
from collections.abc import Sequence
from typing import Any, Literal, TypeVar

from flask import request
from pydantic import BaseModel, ValidationError
from werkzeug.exceptions import HTTPException

from chiffon.api import kinds
from chiffon.api.parts import parts
from chiffon.api.problems import ApiProblem, Fault
from chiffon.domain.values import parse, pointer_to

M = TypeVar("M", bound=BaseModel)

_CHUNK = 65_536
_DRAIN_FACTOR = 8
"""A body that is too large is read on, up to so many times the limit, for its sender hears nothing while it sends."""


def read_body(model: type[M]) -> M:
    """The JSON body of this request. Raises ApiProblem, InvalidValue."""
    return fit(model, read_json())


def read_json() -> Any:
    """The body as a JSON value that the ledger can keep. Raises ApiProblem, InvalidValue."""
    kind = request.mimetype
    if kind != "application/json" and not (kind.startswith("application/") and kind.endswith("+json")):
        raise ApiProblem(
            kinds.UNSUPPORTED_MEDIA_TYPE,
            f"the body's type is {kind or 'not given'}: send Content-Type: application/json",
            headers={"Accept": "application/json"},
        )
    if (coding := request.headers.get("Content-Encoding", "")).lower() not in {"", "identity"}:
        raise ApiProblem(
            kinds.UNSUPPORTED_MEDIA_TYPE,
            f"the body is encoded as {coding!a}: send it as it is",
            headers={"Accept-Encoding": "identity"},
        )
    return parse(_bytes())


def read_query(model: type[M]) -> M:
    """The query parameters. Raises ApiProblem for unknown, repeated and wrong ones."""
    given = request.args.to_dict(flat=False)
    repeated = [Fault(parameter=name, detail="given more than once") for name, values in given.items() if values[1:]]
    if repeated:
        raise ApiProblem(kinds.INVALID_INPUT, _sentence(repeated), repeated)
    return fit(model, {name: values[0] for name, values in given.items()}, place="parameter")


def fit(model: type[M], value: Any, *, prefix: str = "", place: Literal["pointer", "parameter"] = "pointer") -> M:
    """``value`` as a ``model``. ``prefix``: the pointer of ``value`` in the body. Raises ApiProblem."""
    try:
        return model.model_validate(value)
    except ValidationError as found:
        faults = [_fault(model, error, prefix, place) for error in found.errors(include_url=False)]
    raise ApiProblem(kinds.INVALID_INPUT, _sentence(faults), faults)


def check_size() -> None:
    """Refuse a body that says itself that it is too large. Raises ApiProblem."""
    if (request.content_length or 0) > parts().settings.max_body:
        raise _too_large()


def _bytes() -> bytes:
    """The body. One sent in chunks has no length to look at beforehand."""
    limit = parts().settings.max_body
    body = bytearray()
    while len(body) <= limit and (chunk := _read(limit + 1 - len(body))):
        body += chunk
    if len(body) > limit:
        raise _too_large()
    return bytes(body)


def _read(size: int) -> bytes:
    """Up to ``size`` bytes of the body, none at its end. Raises ApiProblem where the rest of it cannot be made out."""
    try:
        return request.stream.read(size)
    except HTTPException:
        raise
    except Exception as error:  # each server has its own for chunks that are not, and for a client that is gone
        raise ApiProblem(
            kinds.NOT_JSON, f"the body ends too early, or its chunks cannot be told apart ({type(error).__name__})"
        ) from error


def _too_large() -> ApiProblem:
    """The problem, once what is still sent was read, within reason: an answer amid it would be lost."""
    limit = parts().settings.max_body
    left = _DRAIN_FACTOR * limit
    with contextlib.suppress(ApiProblem):
        while left > 0 and (chunk := _read(min(left, _CHUNK))):
            left -= len(chunk)
    return ApiProblem(kinds.BODY_TOO_LARGE, f"the body has more than {limit:,} bytes. {kinds.BODY_TOO_LARGE.advice}")


def _fault(model: type[BaseModel], error: Any, prefix: str, place: str) -> Fault:
    path: tuple[str | int, ...] = error["loc"]
    if place == "parameter":
        return Fault(parameter=str(path[0]) if path else "", detail=_detail(model, error))
    return Fault(pointer=prefix + pointer_to(path), detail=_detail(model, error))


def _detail(model: type[BaseModel], error: Any) -> str:
    path = error["loc"]
    match error["type"]:
        case "extra_forbidden":
            near = difflib.get_close_matches(str(path[-1]), model.model_fields, n=1) if len(path) == 1 else []
            return f"unknown; did you mean {near[0]!r}?" if near else "unknown"
        case "missing":
            return "required"
        case "model_type" | "model_attributes_type":
            return "must be a JSON object"
        case _:
            return str(error["msg"]).removeprefix("Value error, ").replace("Input should", "should", 1)


def _sentence(faults: Sequence[Fault]) -> str:
    named = [f"{f.pointer or f.parameter or 'the body'}: {f.detail}" for f in faults[:5]]
    more = f"; and {len(faults) - 5} more" if len(faults) > 5 else ""
    return "; ".join(named) + more
