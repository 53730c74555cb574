"""Every error is `application/problem+json`, and tells nothing that is not the caller's."""

from __future__ import annotations

import pytest

from chiffon.api.kinds import INTERNAL_ERROR, KINDS, kind_of
from chiffon.domain import errors
from tests.api import DocumentedClient, api, problem


@pytest.fixture(scope="module")
def client() -> DocumentedClient:
    return api()


@pytest.mark.parametrize(
    "path", ["/", "/nothing", "/tasks/", "/tasks/a/b", "/docs/secrets.js", "/docs/../app.py", "//"]
)
def test_a_path_that_is_no_route_is_404(client: DocumentedClient, path: str) -> None:
    assert problem(client.get(path)) == (404, "not-found", set())


@pytest.mark.parametrize(
    ("method", "path", "allowed"),
    [
        ("DELETE", "/tasks", {"GET", "HEAD", "OPTIONS"}),
        ("GET", "/dispatch", {"POST", "OPTIONS"}),
        ("PUT", "/tasks/a/cancel", {"POST", "OPTIONS"}),
    ],
)
def test_a_method_that_the_route_does_not_take_is_405(
    client: DocumentedClient, method: str, path: str, allowed: set[str]
) -> None:
    response = client.open(path, method=method)
    assert problem(response) == (405, "method-not-allowed", set())
    assert set(response.headers["Allow"].split(", ")) == allowed


def test_the_instance_is_what_was_asked_for(client: DocumentedClient) -> None:
    for path in ("/nothing", "/api/v1/nothing"):
        response = client.get(f"{path}?a=b")
        assert response.json is not None
        assert response.json["instance"] == path


@pytest.mark.parametrize("path", ["/tasks", "/tasks/a", "/status/a", "/work-types", "/agents", "/agents/a", "/queues"])
def test_a_ledger_that_is_away_is_503_at_once(client: DocumentedClient, path: str) -> None:
    response = client.get(path)
    assert problem(response) == (503, "ledger-unavailable", set())
    assert response.headers["Retry-After"] == "2"


def test_what_postgres_says_of_itself_is_not_passed_on(client: DocumentedClient) -> None:
    for path in ("/tasks", "/health/ready"):
        assert "127.0.0.1" not in client.get(path).text


def test_health_tells_a_ledger_that_is_away(client: DocumentedClient) -> None:
    assert client.get("/health/live").json == {"status": "alive"}
    assert problem(client.get("/health/ready?probe=1")) == (503, "ledger-unavailable", set())


def test_an_error_of_ours_is_500_without_its_trace(monkeypatch: pytest.MonkeyPatch) -> None:
    def broken(*_: object, **__: object) -> None:
        raise RuntimeError("secret")

    monkeypatch.setattr("chiffon.api.routes.tasks.find_task", broken)
    client = api()
    monkeypatch.setattr("chiffon.dispatch.health.SchemaGuard.check", lambda _: None)
    response = client.get("/tasks/a")
    assert problem(response) == (500, "internal-error", set())
    assert "secret" not in response.text
    assert "Traceback" not in response.text


def test_each_type_has_a_page(client: DocumentedClient) -> None:
    listed = client.get("/problems").json
    assert listed is not None
    assert {item["type"] for item in listed["items"]} == {f"/problems/{name}" for name in KINDS}
    for item in listed["items"]:
        assert client.get(item["type"]).json == item
    assert problem(client.get("/problems/nothing")) == (404, "not-found", set())


def test_every_error_that_a_caller_can_meet_has_a_kind() -> None:
    inside = {errors.ChiffonError, errors.MalformedMessage}  # of the bus; no request meets it
    tree = [errors.ChiffonError]
    for error in tree:
        tree += [kind for kind in error.__subclasses__() if kind.__module__ == errors.__name__]
    unknown = [error for error in set(tree) - inside if kind_of(error.__new__(error)) is INTERNAL_ERROR]
    assert unknown == []


def test_a_fault_at_the_100th_place_is_the_last_that_is_listed(client: DocumentedClient) -> None:
    response = client.post("/dispatch", json={f"field{n}": n for n in range(300)})
    assert response.json is not None
    assert len(response.json["errors"]) == 100
    assert "more" in response.json["detail"]
