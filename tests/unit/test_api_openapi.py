"""The OpenAPI: one document, true of every route. (The tests' own client holds each answer against it.)"""

from __future__ import annotations

import re
from typing import Any

import pytest
from jsonschema import Draft202012Validator

from chiffon.api.openapi import operations, problems_of
from tests.api import DocumentedClient, api

ROUTES = {
    ("post", "/dispatch"),
    ("post", "/dispatch/batch"),
    ("get", "/tasks"),
    ("get", "/tasks/{task_id}"),
    ("get", "/status/{task_id}"),
    ("get", "/tasks/{task_id}/events"),
    ("post", "/tasks/{task_id}/cancel"),
    ("post", "/tasks/{task_id}/replay"),
    ("get", "/work-types"),
    ("get", "/agents"),
    ("get", "/agents/{agent_id}"),
    ("get", "/queues"),
    ("get", "/dead-letters"),
    ("post", "/dead-letters/replay"),
    ("post", "/dead-letters/discard"),
    ("get", "/health/live"),
    ("get", "/metrics"),
    ("get", "/health/ready"),
}


@pytest.fixture(scope="module")
def client() -> DocumentedClient:
    return api()


@pytest.fixture(scope="module")
def document(client: DocumentedClient) -> dict[str, Any]:
    found = client.get("/openapi.json").json
    assert isinstance(found, dict)
    return found


def test_it_lists_every_route_once(document: dict[str, Any]) -> None:
    assert {(method, path) for path, methods in document["paths"].items() for method in methods} == ROUTES
    assert document["openapi"].startswith("3.1")


def test_it_is_the_same_under_the_prefix(client: DocumentedClient, document: dict[str, Any]) -> None:
    assert client.get("/api/v1/openapi.json").json == document
    assert [server["url"] for server in document["servers"]] == ["/", "/api/v1"]


def test_every_error_is_announced_as_a_problem(client: DocumentedClient, document: dict[str, Any]) -> None:
    for path, method, about in operations(client.application):
        answers = document["paths"][path][method]["responses"]
        errors = {status: answer for status, answer in answers.items() if int(status) >= 400}
        assert set(errors) == {str(kind.status) for kind in problems_of(about)}
        for answer in errors.values():
            assert list(answer["content"]) == ["application/problem+json"]
        for kind in problems_of(about):
            assert f"`{kind.name}`" in errors[str(kind.status)]["description"]


def test_an_unavailable_service_is_announced_with_retry_after(document: dict[str, Any]) -> None:
    for methods in document["paths"].values():
        for operation in methods.values():
            if "503" in operation["responses"]:
                assert "Retry-After" in operation["responses"]["503"]["headers"]


def test_every_reference_leads_somewhere(document: dict[str, Any]) -> None:
    for reference in set(re.findall(r"#/components/schemas/(\w+)", str(document))):
        assert reference in document["components"]["schemas"]


def test_every_schema_is_one(document: dict[str, Any]) -> None:
    for schema in document["components"]["schemas"].values():
        Draft202012Validator.check_schema(schema)


def test_every_operation_says_what_it_does(document: dict[str, Any]) -> None:
    ids = [operation["operationId"] for methods in document["paths"].values() for operation in methods.values()]
    assert len(ids) == len(set(ids))
    for methods in document["paths"].values():
        for operation in methods.values():
            assert operation["summary"].endswith(".")
            assert operation["tags"]


def test_path_parameters_are_required(document: dict[str, Any]) -> None:
    for path, methods in document["paths"].items():
        for operation in methods.values():
            named = {p["name"] for p in operation["parameters"] if p["in"] == "path" and p["required"]}
            assert named == set(re.findall(r"{(\w+)}", path))


def test_the_filters_of_a_list_are_announced_as_they_are_read(document: dict[str, Any]) -> None:
    parameters = {p["name"]: p["schema"] for p in document["paths"]["/tasks"]["get"]["parameters"]}
    assert set(parameters) == {
        "status", "work_type", "trace_id", "request_id", "agent_id", "label", "since", "until", "limit", "cursor",
    }  # fmt: skip
    assert parameters["limit"] == {"type": "integer", "minimum": 1, "maximum": 500, "default": 50}
    assert "timed_out" in parameters["status"]["enum"]


def test_the_fields_of_a_dispatch_are_announced_with_their_limits(document: dict[str, Any]) -> None:
    dispatch = document["components"]["schemas"]["Dispatch"]
    assert dispatch["required"] == ["work_type"]
    assert dispatch["additionalProperties"] is False
    assert dispatch["properties"]["priority"] == {
        "type": "integer", "minimum": 1, "maximum": 5, "default": 3, "title": "Priority",
        "description": "5 is done first.",
    }  # fmt: skip


def test_a_key_is_announced_where_one_is_needed(document: dict[str, Any]) -> None:
    assert all(not operation["security"] for methods in document["paths"].values() for operation in methods.values())
    closed = api(api_keys=("k",)).get("/openapi.json").json
    assert closed is not None
    for path, methods in closed["paths"].items():
        for operation in methods.values():
            assert operation["security"] == ([] if path.startswith("/health/") else [{"key": []}])


def test_the_page_for_people_loads_nothing_from_elsewhere(client: DocumentedClient) -> None:
    page = client.get("/docs")
    assert page.mimetype == "text/html"
    assert "default-src 'none'" in page.headers["Content-Security-Policy"]
    for name in re.findall(r'(?:src|href)="([^"]+)"', page.text):
        assert "//" not in name
        assert client.get(f"/{name}").status_code == 200
        assert client.get(f"/api/v1/{name}").status_code == 200
