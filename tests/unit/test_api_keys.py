"""Who may call, and where the API may listen."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from chiffon.api.keys import is_loopback
from chiffon.api.listening import OpenToAll, check_addresses
from chiffon.config import Settings
from tests.api import NOBODY, DocumentedClient, api, problem

ROOT = Path(__file__).parents[2]
KEYS = ("first-key", "zweiter-schlüssel")


@pytest.fixture(scope="module")
def closed() -> DocumentedClient:
    return api(api_keys=KEYS)


@pytest.fixture(scope="module")
def without_keys() -> DocumentedClient:
    return api()


@pytest.mark.parametrize(
    "path", ["/tasks", "/work-types", "/agents", "/queues", "/dead-letters", "/nothing", "/api/v1/tasks"]
)
def test_without_a_key_everything_is_401(closed: DocumentedClient, path: str) -> None:
    response = closed.get(path)
    assert problem(response) == (401, "unauthorized", set())
    assert response.headers["WWW-Authenticate"] == 'Bearer realm="chiffon"'


@pytest.mark.parametrize(
    "header",
    ["Bearer wrong", "Bearer first-key2", "Bearer first-ke", "Bearer ", "Bearer", "Basic first-key", "first-key"],
)
def test_a_wrong_key_is_401(closed: DocumentedClient, header: str) -> None:
    response = closed.get("/tasks", headers={"Authorization": header})
    assert problem(response) == (401, "unauthorized", set())
    assert response.headers["WWW-Authenticate"].startswith("Bearer ")


@pytest.mark.parametrize("key", KEYS)
@pytest.mark.parametrize("scheme", ["Bearer", "bearer"])
def test_each_key_opens(closed: DocumentedClient, scheme: str, key: str) -> None:
    header = f"{scheme} {key}".encode().decode("latin-1")  # as WSGI hands it over
    assert closed.get("/tasks", headers={"Authorization": header}).status_code == 503


@pytest.mark.parametrize(
    "path", ["/health/live", "/openapi.json", "/docs", "/docs/docs.js", "/problems", "/problems/busy"]
)
def test_health_and_the_documentation_ask_for_no_key(closed: DocumentedClient, path: str) -> None:
    assert closed.get(path).status_code == 200
    assert closed.get(f"/api/v1{path}").status_code == 200


def test_health_tells_its_problems_without_a_key(closed: DocumentedClient) -> None:
    assert closed.get("/health/ready").status_code == 503


def test_an_unknown_method_does_not_get_around_the_key(closed: DocumentedClient) -> None:
    for method in ("OPTIONS", "HEAD", "DELETE"):
        assert closed.open("/tasks", method=method).status_code == 401


def test_with_keys_any_address_and_host_is_served(closed: DocumentedClient) -> None:
    response = closed.get(
        "/health/live", base_url="http://chiffon.example", environ_overrides={"SERVER_NAME": "10.0.0.7"}
    )
    assert response.status_code == 200


@pytest.mark.parametrize(
    "host", ["chiffon.example", "10.0.0.7", "192.168.0.1:8000", "[2001:db8::1]:80", "127.0.0.1.evil"]
)
def test_without_keys_another_host_name_is_403(without_keys: DocumentedClient, host: str) -> None:
    response = without_keys.get("/tasks", headers={"Host": host})
    assert problem(response) == (403, "keys-required", set())


@pytest.mark.parametrize("name", ["0.0.0.0", "10.0.0.7", "chiffon.example", ""])  # noqa: S104
def test_without_keys_an_address_of_the_network_is_403(without_keys: DocumentedClient, name: str) -> None:
    response = without_keys.get("/health/live", environ_overrides={"SERVER_NAME": name})
    assert problem(response) == (403, "keys-required", set())


@pytest.mark.parametrize(
    "host", ["localhost", "localhost:5000", "127.0.0.1:8000", "[::1]:8000", "127.3.2.1", "a.localhost"]
)
def test_without_keys_this_machine_is_served(without_keys: DocumentedClient, host: str) -> None:
    assert without_keys.get("/health/live", headers={"Host": host}).status_code == 200


@pytest.mark.parametrize("host", ["127.0.0.1", "127.9.9.9", "::1", "::ffff:127.0.0.1", "localhost", "LOCALHOST."])
def test_loopback_addresses(host: str) -> None:
    assert is_loopback(host)
    check_addresses(Settings(), [host])


@pytest.mark.parametrize("host", ["0.0.0.0", "::", "", "10.0.0.1", "example.org", "::ffff:10.0.0.1", "localhost.evil"])  # noqa: S104
def test_other_addresses_need_keys(host: str) -> None:
    assert not is_loopback(host)
    check_addresses(Settings(api_keys=KEYS), [host])
    with pytest.raises(OpenToAll, match="CHIFFON_API_KEYS"):
        check_addresses(Settings(), ["127.0.0.1", host])


@pytest.mark.parametrize(
    "command",
    [
        ["flask", "run", "--host", "0.0.0.0", "--port", "0"],  # noqa: S104
        ["gunicorn", "wsgi:app", "--bind", "0.0.0.0:0", "--no-control-socket"],
        ["gunicorn", "wsgi:app", "--bind", "127.0.0.1:0", "--bind", "[::]:0", "--no-control-socket"],
    ],
)
def test_servers_refuse_to_listen_to_all_without_keys(command: list[str]) -> None:
    ended = _run(command)
    assert ended.returncode not in {0, None}
    assert "refusing to listen on" in ended.stderr
    assert "CHIFFON_API_KEYS" in ended.stderr
    assert "Traceback" not in ended.stderr


@pytest.mark.parametrize(
    "command", [["flask", "run", "--port", "0"], ["gunicorn", "wsgi:app", "--bind", "127.0.0.1:0"]]
)
def test_a_wrong_setting_ends_the_server_with_a_sentence(command: list[str]) -> None:
    ended = _run(command, CHIFFON_DATABASE_URL="mysql://somewhere")
    assert ended.returncode not in {0, None}
    assert "CHIFFON_DATABASE_URL: must look like postgresql://" in ended.stderr
    assert "Traceback" not in ended.stderr


def _run(command: list[str], **environment: str) -> subprocess.CompletedProcess[str]:
    given = {
        "PATH": str(Path(sys.executable).parent),
        "CHIFFON_DATABASE_URL": f"postgresql://{NOBODY}/nothing",
        "CHIFFON_BROKER_URL": f"amqp://{NOBODY}//",
        **environment,
    }
    return subprocess.run(
        [sys.executable, "-m", *command], cwd=ROOT, env=given, capture_output=True, text=True, timeout=60, check=False
    )
