"""The OpenAPI: APIFlask knows the routes, this adds what each takes and gives, its errors among it."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from typing import Any, TypeGuard, cast

from apiflask import APIFlask
from pydantic import BaseModel
from pydantic.json_schema import JsonSchemaMode, models_json_schema

from chiffon.api import kinds
from chiffon.api.contract import JSON, Operation
from chiffon.api.kinds import Kind
from chiffon.api.problems import CONTENT_TYPE, Problem

_REFERENCE = "#/components/schemas/{model}"
_SECURITY = "key"
_ALWAYS = (kinds.KEYS_REQUIRED, kinds.BODY_TOO_LARGE, kinds.INTERNAL_ERROR)
_WITH_A_BODY = (kinds.NOT_JSON, kinds.UNSUPPORTED_MEDIA_TYPE, kinds.INVALID_INPUT)

Document = dict[str, Any]


def install(app: APIFlask, *, needs_key: bool) -> None:
    """Have ``app`` say all of it."""
    app.config["AUTO_404_RESPONSE"] = False
    app.config["SECURITY_SCHEMES"] = {
        _SECURITY: {"type": "http", "scheme": "bearer", "description": "One of CHIFFON_API_KEYS."}
    }
    app.servers = [{"url": "/"}, {"url": "/api/v1", "description": "The same routes."}]
    app.spec_processor(lambda document: _complete(app, cast(Document, document), needs_key=needs_key))


def problems_of(about: Operation) -> tuple[Kind, ...]:
    """Every problem that an operation may answer."""
    found = [*about.problems, *_ALWAYS]
    if not about.is_open:
        found += [kinds.UNAUTHORIZED, kinds.INVALID_INPUT]
    if about.body is not None:
        found += _WITH_A_BODY
    return tuple(sorted(set(found), key=lambda kind: (kind.status, kind.name)))


def operations(app: APIFlask) -> Iterator[tuple[str, str, Operation]]:
    """The path (as OpenAPI writes it), method and description of every operation."""
    for rule in app.url_map.iter_rules():
        about = getattr(app.view_functions[rule.endpoint], "operation", None)
        if about is not None:
            path = rule.rule.replace("<", "{").replace(">", "}")
            method = next(iter((rule.methods or set()) - {"HEAD", "OPTIONS"}))
            yield path, method.lower(), about


def _complete(app: APIFlask, document: Document, *, needs_key: bool) -> Document:
    schemas = _schemas(about for _, _, about in operations(app))
    document.setdefault("components", {})["schemas"] = schemas
    for path, method, about in operations(app):
        entry = document["paths"][path][method]
        entry["operationId"] = (
            f"{method}_{path.strip('/').replace('/', '_').replace('{', '').replace('}', '')}".replace("-", "_")
        )
        entry["parameters"] = [*_path_parameters(entry), *_query_parameters(about), *_header_parameters(about)]
        if about.body is not None:
            entry["requestBody"] = {"required": True, "content": {JSON: {"schema": _schema(about.body)}}}
        entry["responses"] = {str(status): answer for status, answer in _answers(about).items()}
        entry["security"] = [{_SECURITY: []}] if needs_key and not about.is_open else []
    return document


def _schemas(abouts: Iterator[Operation]) -> Document:
    wanted: dict[tuple[type[BaseModel], JsonSchemaMode], None] = {(Problem, "serialization"): None}
    for about in abouts:
        if about.body is not None:
            wanted[about.body, "validation"] = None
        wanted.update({(model, "serialization"): None for model, _ in about.gives.values() if _is_model(model)})
    _, found = models_json_schema(list(wanted), ref_template=_REFERENCE)
    schemas: Document = found["$defs"]
    return schemas


def _schema(model: type[BaseModel]) -> Document:
    return {"$ref": _REFERENCE.format(model=model.__name__)}


def _is_model(given: type[BaseModel] | type[str] | None) -> TypeGuard[type[BaseModel]]:
    return given is not None and issubclass(given, BaseModel)


def _of_content(kind: str, model: type[BaseModel] | type[str]) -> Document:
    if not _is_model(model):
        return {"type": "string"}
    if kind == JSON:
        return _schema(model)
    return {"type": "string", "contentMediaType": JSON, "contentSchema": _schema(model)}


def _path_parameters(entry: Mapping[str, Any]) -> list[Document]:
    return [{**known, "required": True} for known in entry.get("parameters", []) if known["in"] == "path"]


def _query_parameters(about: Operation) -> list[Document]:
    if about.query is None:
        return []
    schema = about.query.model_json_schema(ref_template=_REFERENCE)
    defs = schema.get("$defs", {})
    return [_parameter("query", name, _inlined(member, defs)) for name, member in schema["properties"].items()]


def _header_parameters(about: Operation) -> list[Document]:
    return [_parameter("header", h.name, {**h.schema, "description": h.description}) for h in about.headers]


def _parameter(where: str, name: str, schema: Document) -> Document:
    said = {key: value for key, value in schema.items() if key not in {"title", "description", "default"}}
    if "anyOf" in said:  # null is how an absent parameter is written down here, not what a caller may send
        options = [option for option in said.pop("anyOf") if option != {"type": "null"}]
        said |= options[0] if len(options) == 1 else {"anyOf": options}
    if schema.get("default") is not None:
        said["default"] = schema["default"]
    return {"in": where, "name": name, "description": schema.get("description", ""), "schema": said}


def _inlined(schema: Document, defs: Document) -> Document:
    """The schema with references of its own put in their place."""
    if "$ref" in schema:
        return {**defs[schema["$ref"].rsplit("/", 1)[1]], **{k: v for k, v in schema.items() if k != "$ref"}}
    return {k: [_inlined(o, defs) for o in v] if k == "anyOf" else v for k, v in schema.items()}


def _answers(about: Operation) -> dict[int, Document]:
    found: dict[int, Document] = {}
    for status, (model, meaning) in about.gives.items():
        found[status] = {"description": meaning}
        if model is not None:
            found[status]["content"] = {kind: {"schema": _of_content(kind, model)} for kind in about.media_types}
        named = (about.answer_headers or {}).get(status, {})
        if named:
            found[status]["headers"] = {
                name: {"description": said, "schema": {"type": "string"}} for name, said in named.items()
            }
    for kind in problems_of(about):
        known = found.setdefault(
            kind.status, {"description": "", "content": {CONTENT_TYPE: {"schema": _schema(Problem)}}}
        )
        known["description"] = "; ".join(filter(None, [known["description"], f"`{kind.name}`: {kind.title}"]))
        if kind.retry_after is not None:
            known["headers"] = {"Retry-After": {"description": "Seconds.", "schema": {"type": "integer"}}}
    return found
