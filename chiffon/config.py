"""Settings: what the environment says, validated once and frozen."""

from __future__ import annotations

import os
from collections.abc import Mapping
from functools import cache
from ipaddress import IPv4Network, IPv6Network, ip_network
from typing import Annotated, Literal, Self
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, ValidationError, field_validator, model_validator

PREFIX = "CHIFFON_"

Seconds = Annotated[float, Field(gt=0, allow_inf_nan=False)]
"""A duration in seconds, greater than zero."""

Grace = Annotated[float, Field(ge=0, allow_inf_nan=False)]
"""A duration in seconds that may be none."""

Secret = Field(repr=False)
"""What holds a password is not shown with the rest."""


class SettingsError(Exception):
    """The environment does not describe a Chiffon that could run; the message names each variable."""


class Settings(BaseModel):
    """Every ``CHIFFON_*`` variable, with its default; `.env.example` gives the reasons.

    Durations are seconds, sizes are bytes.
    """

    model_config = ConfigDict(frozen=True, extra="forbid", hide_input_in_errors=True, validate_default=True)

    database_url: Annotated[str, Secret] = "postgresql://127.0.0.1:5432/chiffon"
    database_direct_url: Annotated[str, Secret] = ""
    broker_url: Annotated[str, Secret] = "amqp://127.0.0.1:5672//"
    management_url: Annotated[str, Secret] = ""
    queue_type: Literal["classic", "quorum"] = "classic"

    api_keys: Annotated[tuple[str, ...], Secret] = ()
    streams: int = Field(default=8, ge=0)
    max_body: int = Field(default=1_000_000, gt=0)
    max_result: int = Field(default=1_000_000, gt=0)
    max_message: int = Field(default=16_000_000, gt=0)

    idempotency_ttl: Seconds = 300
    retention: Grace = 0
    default_timeout: Seconds = 3600
    max_crashes: int = Field(default=3, ge=1)
    unknown_after: Seconds = 3600
    ack_after: Seconds = 600
    lost_after: Seconds = 10
    drain_seconds: Grace = 60
    cancel_grace: Grace = 2
    work_ahead: Grace = 0.02

    heartbeat_seconds: Seconds = 60
    offline_after: Seconds = 180
    takeover_grace: Grace = 2

    ring_lease: Seconds = 5
    sweep_seconds: Seconds = 1

    workers: str = "workers"
    shell_allow: tuple[str, ...] = ("*",)
    http_allow_networks: tuple[IPv4Network | IPv6Network, ...] = ()
    secret_parameters: tuple[str, ...] = (
        "password", "passwd", "secret", "token", "api_key", "apikey", "authorization", "credential", "private_key",
        "cookie",
    )  # fmt: skip

    log_level: Literal["DEBUG", "INFO", "WARNING", "ERROR"] = "INFO"
    log_format: Literal["json", "console"] = "json"

    @field_validator("api_keys", "shell_allow", "secret_parameters", mode="before")
    @classmethod
    def _split_words(cls, value: object) -> object:
        return tuple(w.strip() for w in value.split(",") if w.strip()) if isinstance(value, str) else value

    @field_validator("http_allow_networks", mode="before")
    @classmethod
    def _split_networks(cls, value: object) -> object:
        if isinstance(value, str):
            return tuple(ip_network(w.strip()) for w in value.split(",") if w.strip())
        return value

    @field_validator("database_url", "database_direct_url")
    @classmethod
    def _name_the_driver(cls, value: str) -> str:
        """Name psycopg2: to SQLAlchemy 2.1 a bare ``postgresql://`` means psycopg 3."""
        if not value:
            return value
        schemes = {"postgresql", "postgres", "postgresql+psycopg2"}
        _check_url(value, schemes, "postgresql://user:password@host:5432/database")
        return f"postgresql+psycopg2://{value.partition('://')[2]}"

    @field_validator("broker_url")
    @classmethod
    def _amqp_only(cls, value: str) -> str:
        for url in value.split(";"):
            example = "amqp://user:password@host:5672// (several, joined by ';', are failed over)"
            _check_url(url.strip(), {"amqp", "amqps", "pyamqp"}, example)
        return value

    @field_validator("management_url")
    @classmethod
    def _http_only(cls, value: str) -> str:
        if value:
            _check_url(value, {"http", "https"}, "http://user:password@host:15672")
        return value

    @model_validator(mode="after")
    def _offline_is_later_than_a_heartbeat(self) -> Self:
        if self.offline_after <= self.heartbeat_seconds:
            raise ValueError("CHIFFON_OFFLINE_AFTER must be longer than CHIFFON_HEARTBEAT_SECONDS")
        return self

    @property
    def direct_url(self) -> str:
        """The ledger's URL past any transaction pooler, which would take locks and LISTEN away with their session."""
        return self.database_direct_url or self.database_url

    @classmethod
    def from_environment(cls, environ: Mapping[str, str] | None = None) -> Settings:
        """Read ``CHIFFON_*`` from ``environ`` (default: the process's own). Raises SettingsError.

        An empty variable is as good as none, but for a list: there it is the empty one. Unknown ``CHIFFON_*`` names
        are left alone: devstack and tests have variables of their own.
        """
        source = os.environ if environ is None else environ
        given = {
            name: said
            for name, field in cls.model_fields.items()
            if (said := source.get(PREFIX + name.upper())) is not None and (said or isinstance(field.default, tuple))
        }
        try:
            return cls.model_validate(given)
        except ValidationError as problems:
            raise SettingsError(_explain(problems)) from None


@cache
def settings() -> Settings:
    """This process's settings, read once. Raises SettingsError."""
    return Settings.from_environment()


def validated_database_url(url: str) -> str:
    """A database's URL that came another way than by the environment, checked and completed alike.

    Raises:
        SettingsError: it is not one.
    """
    try:
        return Settings(database_url=url).database_url
    except ValidationError as problems:
        raise SettingsError(problems.errors()[0]["msg"].removeprefix("Value error, ")) from None


def _check_url(url: str, schemes: set[str], example: str) -> None:
    """Raise ValueError unless ``url`` has one of the schemes and a possible address. Its password is not repeated."""
    try:
        parts = urlsplit(url)
    except ValueError:  # a bracket of an IPv6 address is missing
        raise ValueError(f"must look like {example}") from None
    if parts.scheme not in schemes or "://" not in url:
        raise ValueError(f"must look like {example}")
    try:
        parts.port  # noqa: B018  -- the property parses, and raises
    except ValueError:
        raise ValueError("the port is not a number between 0 and 65535") from None


def _explain(problems: ValidationError) -> str:
    lines = []
    for problem in problems.errors():
        where = PREFIX + str(problem["loc"][0]).upper() if problem["loc"] else "settings"
        lines.append(f"{where}: {problem['msg'].removeprefix('Value error, ')}")
    return "\n".join(lines)
