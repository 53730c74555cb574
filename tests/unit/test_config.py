"""Settings: the defaults that are promised, and a sentence for each that cannot work."""

from __future__ import annotations

from ipaddress import ip_network

import pytest
from pydantic import ValidationError

from chiffon.config import Settings, SettingsError


def given_settings(**variables: str) -> Settings:
    """Settings from an environment that has only these ``CHIFFON_*``."""
    return Settings.from_environment({f"CHIFFON_{name.upper()}": value for name, value in variables.items()})


def refusal(**variables: str) -> str:
    """Why these variables are refused."""
    with pytest.raises(SettingsError) as caught:
        given_settings(**variables)
    return str(caught.value)


def test_the_times_that_the_design_promises_are_the_defaults() -> None:
    settings = given_settings()
    assert settings.heartbeat_seconds == 60
    assert settings.offline_after == 180
    assert settings.idempotency_ttl == 300
    assert settings.max_crashes == 3
    assert settings.takeover_grace == 2
    assert settings.ack_after == 600
    assert settings.default_timeout == 3600
    assert settings.unknown_after == 3600
    assert settings.cancel_grace == 2


def test_other_defaults_are_those_of_a_machine_of_ones_own() -> None:
    settings = given_settings()
    assert "127.0.0.1" in settings.database_url
    assert "127.0.0.1" in settings.broker_url
    assert settings.queue_type == "classic"
    assert settings.api_keys == ()
    assert settings.max_body == 1_000_000
    assert settings.http_allow_networks == ()


def test_an_empty_variable_is_one_that_was_not_set() -> None:
    assert given_settings(database_url="", heartbeat_seconds="", queue_type="") == given_settings()


def test_variables_of_others_are_left_alone() -> None:
    environment = {"CHIFFON_TEST_BROKER_URL": "x", "CHIFFON_NEW": "y", "HEARTBEAT_SECONDS": "9", "PATH": "/bin"}
    assert Settings.from_environment(environment) == given_settings()


def test_settings_are_frozen() -> None:
    with pytest.raises(ValidationError):
        given_settings().max_crashes = 9  # type: ignore[misc]


def test_the_default_ledger_names_its_driver_too() -> None:
    assert given_settings().database_url.startswith("postgresql+psycopg2://")
    assert given_settings().direct_url.startswith("postgresql+psycopg2://")


@pytest.mark.parametrize("scheme", ["postgresql", "postgres", "postgresql+psycopg2"])
def test_the_driver_is_named_whichever_way_the_ledger_is(scheme: str) -> None:
    rest = "user:p%40ss@db.example:6432/chiffon?sslmode=require"
    assert given_settings(database_url=f"{scheme}://{rest}").database_url == f"postgresql+psycopg2://{rest}"


def test_without_a_direct_url_there_is_one_way_to_the_ledger() -> None:
    assert given_settings(database_url="postgresql://a/b").direct_url == "postgresql+psycopg2://a/b"
    both = given_settings(database_url="postgresql://a/b", database_direct_url="postgres://c/d")
    assert both.direct_url == "postgresql+psycopg2://c/d"


def test_several_brokers_may_be_named() -> None:
    urls = "amqp://a:5672//;amqps://b:5671/x; pyamqp://c"
    assert given_settings(broker_url=urls).broker_url == urls


@pytest.mark.parametrize(
    ("name", "value", "told"),
    [
        ("database_url", "localhost", "must look like postgresql://"),
        ("database_url", "mysql://localhost/chiffon", "must look like postgresql://"),
        ("database_url", "postgresql:/localhost/chiffon", "must look like postgresql://"),
        ("database_url", "postgresql+asyncpg://localhost/chiffon", "must look like postgresql://"),
        ("database_url", "postgresql://localhost:port/chiffon", "port"),
        ("database_url", "postgresql://localhost:70000/chiffon", "port"),
        ("database_url", "postgresql://[::1/chiffon", "must look like postgresql://"),
        ("database_direct_url", "sqlite:///x", "must look like postgresql://"),
        ("broker_url", "localhost:5672", "must look like amqp://"),
        ("broker_url", "redis://localhost", "must look like amqp://"),
        ("broker_url", "amqp://a//;", "must look like amqp://"),
        ("broker_url", "amqp://a//;http://b", "must look like amqp://"),
        ("broker_url", "amqp://a:port//", "port"),
        ("broker_url", "amqp://a//;amqp://b:99999//", "port"),
        ("broker_url", "amqp://[::1", "must look like amqp://"),
        ("management_url", "localhost:15672", "must look like http://"),
        ("management_url", "amqp://localhost", "must look like http://"),
        ("management_url", "http://localhost:port", "port"),
        ("management_url", "http://[::1", "must look like http://"),
    ],
)
def test_a_wrong_url_is_told_with_the_variable_and_what_it_should_look_like(name: str, value: str, told: str) -> None:
    message = refusal(**{name: value})
    assert message.startswith(f"CHIFFON_{name.upper()}: ")
    assert told in message


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("queue_type", "stream"),
        ("log_level", "LOUD"),
        ("log_format", "xml"),
        ("max_body", "0"),
        ("max_body", "1.5"),
        ("max_result", "-1"),
        ("max_crashes", "0"),
        ("max_crashes", "three"),
        ("idempotency_ttl", "0"),
        ("idempotency_ttl", "5 minutes"),
        ("heartbeat_seconds", "-1"),
        ("sweep_seconds", "0"),
        ("takeover_grace", "-0.1"),
        ("http_allow_networks", "10.0.0.0/33"),
        ("http_allow_networks", "example.org"),
        ("http_allow_networks", "10.0.0.1/8"),
    ],
)
def test_a_value_that_cannot_work_is_told_with_the_variable(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"CHIFFON_{name.upper()}: ")


@pytest.mark.parametrize("name", [name for name, field in Settings.model_fields.items() if field.annotation is float])
@pytest.mark.parametrize("value", ["nan", "inf", "-inf"])
def test_a_duration_is_a_number_of_seconds_that_ends(name: str, value: str) -> None:
    assert refusal(**{name: value}).startswith(f"CHIFFON_{name.upper()}: ")


def test_every_wrong_variable_is_told_at_once() -> None:
    message = refusal(max_crashes="0", queue_type="x", broker_url="y")
    assert sorted(line.partition(":")[0] for line in message.splitlines()) == [
        "CHIFFON_BROKER_URL",
        "CHIFFON_MAX_CRASHES",
        "CHIFFON_QUEUE_TYPE",
    ]


def test_an_agent_is_not_offline_before_it_could_have_beaten() -> None:
    assert "CHIFFON_OFFLINE_AFTER must be longer" in refusal(heartbeat_seconds="60", offline_after="60")


@pytest.mark.parametrize(
    "variables",
    [
        {"database_url": "postgresql://user:hunter2@db:port/chiffon"},
        {"database_url": "mysql://user:hunter2@db/chiffon"},
        {"database_url": "postgresql://user:hunter2@[::1/chiffon"},
        {"broker_url": "amqp://user:hunter2@rabbit:99999//"},
        {"broker_url": "http://user:hunter2@rabbit//"},
        {"management_url": "amqp://user:hunter2@rabbit"},
        {"management_url": "http://user:hunter2@rabbit:hunter2"},
        {"database_url": "postgresql://user:hunter2#@db/chiffon"},
    ],
)
def test_no_message_holds_a_password(variables: dict[str, str]) -> None:
    assert "hunter2" not in refusal(**variables)


def test_lists_are_words_between_commas() -> None:
    settings = given_settings(
        api_keys=" one, two ,,three", secret_parameters="pin", http_allow_networks="10.0.0.0/8, ::1"
    )
    assert settings.api_keys == ("one", "two", "three")
    assert settings.secret_parameters == ("pin",)
    assert settings.http_allow_networks == (ip_network("10.0.0.0/8"), ip_network("::1"))


def test_an_empty_list_is_a_list_without_words() -> None:
    settings = given_settings(shell_allow="", api_keys=" , ", http_allow_networks="")
    assert (settings.shell_allow, settings.api_keys, settings.http_allow_networks) == ((), (), ())


def test_settings_do_not_show_their_secrets() -> None:
    settings = given_settings(
        api_keys="hunter2", database_url="postgresql://u:hunter2@h/d", broker_url="amqp://u:hunter2@h//"
    )
    assert "hunter2" not in repr(settings)
    assert "hunter2" not in str(settings)
