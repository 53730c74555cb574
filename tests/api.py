"""A client of the API that holds every answer against the OpenAPI: what is not documented fails the test."""

from __future__ import annotations

import json
from typing import Any

from apiflask import APIFlask
from flask.testing import FlaskClient
from jsonschema import Draft202012Validator
from werkzeug.exceptions import HTTPException
from werkzeug.test import TestResponse

from chiffon.api.app import create_app
from chiffon.api.prefix import PREFIX
from chiffon.config import Settings

NOBODY = "127.0.0.1:1"
"""Where nobody listens."""

ECHO = {"work_type": "echo", "parameters": {"input": "hello"}}
"""Work to dispatch."""


class DocumentedClient(FlaskClient):
    """Flask's test client; each answer must be one that `/openapi.json` announces."""

    application: APIFlask

    def open(self, *arguments: Any, **options: Any) -> TestResponse:
        """Send a request, and check the answer."""
        response = super().open(*arguments, **options)
        if response.request.method != "HEAD":
            check(self.application, response)
        return response


def api(**settings: Any) -> DocumentedClient:
    """A client of an application of its own; without further settings its ledger and broker are not there."""
    away = {"database_url": f"postgresql://{NOBODY}/nothing", "broker_url": f"amqp://{NOBODY}//"}
    app = create_app(Settings(**{**away, **settings}))
    app.test_client_class = DocumentedClient
    client = app.test_client()
    assert isinstance(client, DocumentedClient)
    return client


def dispatch(client: DocumentedClient, **fields: Any) -> str:
    """Dispatch `ECHO`, with these fields beside, and return the task's id."""
    said = client.post("/dispatch", json={**ECHO, **fields}).json
    assert said is not None
    return str(said["task_id"])


def check(app: APIFlask, response: TestResponse) -> None:
    """Raise AssertionError for an answer that the OpenAPI does not announce."""
    document = app._get_spec("json")
    assert isinstance(document, dict)
    assert response.headers["Cache-Control"] in {"no-store", "no-cache"}
    kind = response.mimetype
    if response.status_code >= 400:
        assert kind == "application/problem+json"
        validate(document, {"$ref": "#/components/schemas/Problem"}, response.get_json(force=True))
        assert response.get_json(force=True)["status"] == response.status_code
    operation = _operation(app, document, response)
    if operation is None:
        return
    announced = operation["responses"].get(str(response.status_code))
    assert announced, f"{response.request.method} {response.request.path}: {response.status_code} is not announced"
    if "content" not in announced:
        assert not response.data
    elif kind.endswith("json"):
        validate(document, announced["content"][kind]["schema"], response.get_json(force=True))
    else:
        assert kind in announced["content"]


def validate(document: dict[str, Any], schema: dict[str, Any], value: Any) -> None:
    """Raise ValidationError unless ``value`` fits ``schema``, which may refer to the document's components."""
    Draft202012Validator({**schema, "components": document["components"]}).validate(value)


def _operation(app: APIFlask, document: dict[str, Any], response: TestResponse) -> dict[str, Any] | None:
    path = response.request.path.removeprefix(PREFIX)
    try:
        rule, _ = app.url_map.bind("localhost").match(path, response.request.method, return_rule=True)
    except HTTPException:
        return None
    methods = document["paths"].get(rule.rule.replace("<", "{").replace(">", "}"), {})
    found: dict[str, Any] | None = methods.get(response.request.method.lower())
    return found


def problem(response: TestResponse) -> tuple[int, str, set[str]]:
    """An error in short: its status, the end of its type, and every place that it names."""
    said = json.loads(response.text)
    places = {fault.get("pointer", fault.get("parameter", fault.get("header"))) for fault in said.get("errors", [])}
    return response.status_code, said["type"].rsplit("/", 1)[-1], places
