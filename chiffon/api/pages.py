"""Pages for people: `/docs`, from files of our own, and what each problem type means."""

from __future__ import annotations

from flask import Blueprint, Response, jsonify, send_from_directory

from chiffon.api import kinds
from chiffon.api.problems import ApiProblem

blueprint = Blueprint("pages", __name__)

_ASSETS = frozenset({"docs.js", "docs.css"})
_ONLY_OURS = (
    "default-src 'none'; script-src 'self'; style-src 'self'; connect-src 'self'; base-uri 'none'; "
    "form-action 'none'; frame-ancestors 'none'"
)


@blueprint.get("/docs")
def docs() -> Response:
    """The page that shows the OpenAPI and sends requests."""
    response = _file("docs.html")
    response.headers["Content-Security-Policy"] = _ONLY_OURS
    return response


@blueprint.get("/docs/<name>")
def asset(name: str) -> Response:
    """What that page loads."""
    if name not in _ASSETS:
        raise ApiProblem(kinds.NOT_FOUND, kinds.NOT_FOUND.advice)
    return _file(name)


@blueprint.get("/problems")
def problems() -> Response:
    """Every problem type."""
    return jsonify({"items": [_shown(kind) for kind in kinds.KINDS.values()], "next_cursor": None})


@blueprint.get("/problems/<name>")
def problem(name: str) -> Response:
    """What a problem type means, and what to do."""
    kind = kinds.KINDS.get(name)
    if kind is None:
        raise ApiProblem(kinds.NOT_FOUND, "there is no such problem type: GET /problems lists them")
    return jsonify(_shown(kind))


def _file(name: str) -> Response:
    response = send_from_directory("docs", name)  # beside this module
    response.headers["Cache-Control"] = "no-cache"
    return response


def _shown(kind: kinds.Kind) -> dict[str, object]:
    return {"type": kind.uri, "title": kind.title, "status": kind.status, "what_to_do": kind.advice}
