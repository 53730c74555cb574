"""`docker-compose.yml` and `.env.example`: nothing undefined, no secret in them, nothing published but the API."""

from __future__ import annotations

import itertools
import re
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from chiffon import __version__
from chiffon.config import PREFIX, Settings
from tests import compose
from tests.compose import FILE, REPOSITORY, Required

SECRETS = {"POSTGRES_PASSWORD", "RABBITMQ_PASSWORD", "FLOWER_PASSWORD", "CHIFFON_API_KEYS"}
OURS = {"migrate", "api", "worker", "flower"}
FILLED_IN = {name: f"{name.lower()}-as-filled-in" for name in SECRETS}

FOUND = compose.load()
SERVICES: dict[str, dict[str, Any]] = FOUND["services"]


def test_it_is_a_valid_compose_file() -> None:
    """By the schema that Compose goes by, for Compose itself is not on every machine; `tests.compose` fills it in."""
    checker = Path(sys.executable).with_name("check-jsonschema")
    done = subprocess.run(
        [checker, "--builtin-schema", "vendor.compose-spec", FILE], capture_output=True, text=True, check=False
    )
    assert done.returncode == 0, done.stdout + done.stderr


def test_it_has_the_services_of_a_whole_chiffon() -> None:
    assert set(SERVICES) == OURS | {"postgres", "rabbitmq"}


@pytest.mark.parametrize("kind", ["volumes", "networks", "configs", "secrets"])
def test_what_a_service_names_is_defined_and_what_is_defined_is_used(kind: str) -> None:
    named = {name for service in SERVICES.values() for name in _names(service.get(kind, []))}
    assert named == set(FOUND.get(kind) or {})


def test_a_service_waits_only_for_services_that_are_there_and_can_be_what_it_waits_for() -> None:
    for service in SERVICES.values():
        for name, wanted in service.get("depends_on", {}).items():
            match wanted["condition"]:
                case "service_healthy":
                    assert SERVICES[name]["healthcheck"]["test"]
                case "service_completed_successfully":
                    assert SERVICES[name]["restart"] == "no"
                case condition:
                    pytest.fail(f"waits for {name} to be {condition}")


def test_whatever_uses_the_ledger_waits_for_its_migration() -> None:
    for name in OURS - {"migrate"}:
        assert SERVICES[name]["depends_on"]["migrate"] == {"condition": "service_completed_successfully"}
    assert SERVICES["migrate"]["command"] == ["chiffon", "db", "upgrade"]


def test_every_variable_is_explained_in_the_example() -> None:
    assert compose.variables(FOUND) <= set(_example())


@pytest.mark.parametrize("missing", sorted(SECRETS))
def test_nothing_starts_without_a_secret(missing: str) -> None:
    for nothing in ({}, {missing: ""}):
        with pytest.raises(Required) as refused:
            compose.resolved(SERVICES, {name: v for name, v in FILLED_IN.items() if name != missing} | nothing)
        name, told = refused.value.args
        assert (name, told) == (missing, "Copy .env.example to .env and fill it in")


def test_no_password_is_in_the_file() -> None:
    for service in SERVICES.values():
        for name, value in service.get("environment", {}).items():
            if re.search("PASS|KEYS|AUTH|SECRET(?!_PARAMETERS)", name):
                assert re.fullmatch(r"(chiffon:)?\$\{\w+:\?[^}]+\}", value), name
            for password in re.findall(r"://[^:/@]+:(.+?)@", str(value)):
                assert password.startswith("${"), name


def test_the_secrets_are_all_that_has_to_be_filled_in() -> None:
    compose.resolved(FOUND, FILLED_IN)
    assert {name for name, (is_set, value) in _example().items() if is_set and not value} == SECRETS
    assert not [name for name, (is_set, value) in _example().items() if is_set and value]


def test_only_the_api_is_published_and_by_default_to_this_machine() -> None:
    published = {name: service["ports"] for name, service in SERVICES.items() if "ports" in service}
    assert compose.resolved(published, {}) == {"api": ["127.0.0.1:8000:8000"]}
    assert not any("network_mode" in service for service in SERVICES.values())


def test_every_image_has_a_version() -> None:
    images = {name: service["image"] for name, service in SERVICES.items()}
    assert images == {
        "postgres": "postgres:18",
        "rabbitmq": "rabbitmq:4.3-management",
        **dict.fromkeys(OURS, f"chiffon:{__version__}"),
    }


def test_every_setting_reaches_every_program() -> None:
    settings = {PREFIX + name.upper() for name in Settings.model_fields}
    for name in OURS:
        given = settings & set(SERVICES[name]["environment"])
        assert given == settings - (set() if name == "api" else {"CHIFFON_API_KEYS"}), name


def test_the_settings_can_be_used() -> None:
    settings = Settings.from_environment(compose.environment(SERVICES["api"], FILLED_IN))
    assert settings.database_url == "postgresql+psycopg2://chiffon:postgres_password-as-filled-in@postgres:5432/chiffon"
    assert settings.broker_url == "amqp://chiffon:rabbitmq_password-as-filled-in@rabbitmq:5672//"
    assert settings.api_keys == ("chiffon_api_keys-as-filled-in",)
    assert settings.queue_type == "quorum"


def test_a_setting_of_the_users_reaches_the_programs_and_one_that_is_not_set_does_not() -> None:
    given = compose.environment(SERVICES["worker"], {**FILLED_IN, "CHIFFON_SHELL_ALLOW": ""})
    assert given["CHIFFON_SHELL_ALLOW"] == ""
    assert "CHIFFON_LOG_LEVEL" not in given


def test_every_service_comes_back_and_is_looked_at_but_the_one_that_ends() -> None:
    for name, service in SERVICES.items():
        if name == "migrate":
            assert (service["restart"], service["healthcheck"]) == ("no", {"disable": True})
        else:
            assert (service["restart"], service["healthcheck"]["test"][0]) == ("unless-stopped", "CMD")


def test_an_agent_that_is_told_to_stop_has_the_time_that_it_needs() -> None:
    minutes = SERVICES["worker"]["stop_grace_period"]
    to_write_down = 30  # seconds
    assert int(minutes.removesuffix("m")) * 60 >= Settings().drain_seconds + to_write_down


def test_the_api_of_the_file_and_of_the_image_are_the_same() -> None:
    instructions = (REPOSITORY / "Dockerfile").read_text()
    assert f"\nCMD {_as_json(SERVICES['api']['command'])}\n" in instructions
    assert f" CMD {_as_json(SERVICES['api']['healthcheck']['test'][1:])}\n" in instructions


def _example() -> dict[str, tuple[bool, str]]:
    """By name, whether `.env.example` sets a variable (or only shows its default), and the value."""
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    found = [match for line in lines if (match := re.fullmatch(r"(# )?([A-Z][A-Z0-9_]+)=(.*)", line))]
    return {match[2]: (match[1] is None, match[3]) for match in found}


def test_the_example_has_every_setting_with_its_default_and_a_reason() -> None:
    shown = {name: value for name, (_, value) in _example().items()}
    assert {PREFIX + name.upper() for name in Settings.model_fields} <= set(shown)
    given = Settings.from_environment(shown)
    assert given == Settings(), "a default in .env.example is not the one of chiffon/config.py"


def test_the_example_names_the_urls_that_compose_sets() -> None:
    text = (REPOSITORY / ".env.example").read_text()
    [sentence] = re.findall(r"docker-compose.yml sets (.+?) by itself", text)
    environment = SERVICES["worker"]["environment"]
    assert set(re.findall(r"CHIFFON_\w+", sentence)) == {n for n, said in environment.items() if said and "://" in said}


def test_the_example_explains_each_variable_before_it_names_it() -> None:
    lines = (REPOSITORY / ".env.example").read_text().splitlines()
    for above, line in itertools.pairwise(lines):
        if re.fullmatch(r"(# )?[A-Z][A-Z0-9_]+=.*", line):
            assert above.startswith("# "), line
            assert above.endswith("."), line
            assert not re.fullmatch(r"(# )?[A-Z][A-Z0-9_]+=.*", above), line


def _names(members: Any) -> set[str]:
    """What a service's list of volumes, networks, configs or secrets names; folders of the host are no volumes."""
    if isinstance(members, dict):
        return set(members)
    found = {m.get("source", "") if isinstance(m, dict) else str(m).split(":")[0] for m in members}
    return {name for name in found if name and not name.startswith((".", "/", "~"))}


def _as_json(words: list[str]) -> str:
    return "[" + ", ".join(f'"{word}"' for word in words) + "]"
