"""Logs: one form for structlog and the standard library, each task named, no secret told."""

from __future__ import annotations

import logging
import math
import re
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from functools import cache
from typing import Any, TextIO

import structlog
from structlog.contextvars import bind_contextvars, reset_contextvars
from structlog.typing import EventDict, Processor, WrappedLogger

from chiffon.config import Settings
from chiffon.domain.redaction import HIDDEN, is_secret

_BROKER_OR_LEDGER = re.compile(r"(amqps?|postgres(ql)?(\+\w+)?)$", re.IGNORECASE)
_URL = re.compile(r"""[^\s"'<>]*""")
_AUTHORITY = re.compile(r"""[^\s"'<>/?#]*""")
_VALUE = (
    r"""(?:(?:bearer|basic)\s+)?(?:"(?:[^"\\]|\\.)*"?|'(?:[^'\\]|\\.)*'?|\{[^{}]*\}?|\[[^\[\]]*\]?|[^\s,;&)}\]]+)"""
)


def configure(settings: Settings, *, level: str | int | None = None, stream: TextIO | None = None) -> None:
    """Send every log of this process, Celery's and Flask's too, to ``stream`` in one form. May be called again.

    Args:
        settings: ``log_format`` (a line of JSON each, or for the console), ``log_level``, ``secret_parameters``.
        level: instead of ``log_level``, such as Celery's ``--loglevel``.
        stream: instead of stderr.
    """
    handler = logging.StreamHandler(stream or sys.stderr)
    handler.setFormatter(_formatter(settings, colors=handler.stream.isatty()))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(settings.log_level if level is None else level)
    logging.getLogger("alembic").setLevel(logging.WARNING)  # it tells of its plugins
    structlog.configure(
        processors=[
            structlog.stdlib.filter_by_level,
            *_shared(),
            structlog.stdlib.PositionalArgumentsFormatter(),
            structlog.processors.StackInfoRenderer(),
            structlog.stdlib.ProcessorFormatter.wrap_for_formatter,
        ],
        logger_factory=structlog.stdlib.LoggerFactory(),
        wrapper_class=structlog.stdlib.BoundLogger,
        cache_logger_on_first_use=True,
    )


@contextmanager
def about(*, task_id: str | None = None, request_id: str | None = None, trace_id: str | None = None) -> Iterator[None]:
    """Whatever is logged in here, by this thread, is about this task. None leaves an id as it was."""
    ids = {"task_id": task_id, "request_id": request_id, "trace_id": trace_id}
    bound = bind_contextvars(**{name: value for name, value in ids.items() if value is not None})
    try:
        yield
    finally:
        reset_contextvars(**bound)


def redacted_repr(value: object, settings: Settings, *, limit: int = 1024) -> str:
    """``value`` as Python writes it, for logs, events and Flower: secrets hidden, at most ``limit`` characters."""
    text = repr(_scrubber(settings.secret_parameters).value(value))
    return text if len(text) <= limit else text[: limit - 3] + "..."


def redacted_text(text: str, settings: Settings) -> str:
    """``text`` as logs, events and Flower show it: secrets hidden."""
    return _scrubber(settings.secret_parameters).text(text)


class Scrubber:
    """Takes secrets out of what is to be logged. ``secret``: parts of the names whose values are hidden."""

    def __init__(self, secret: Iterable[str]) -> None:
        self._secret = tuple(secret)
        names = "|".join(re.escape(word).replace("_", "[-_]") for word in self._secret)
        # The bound keeps a long text of secret names from being read once for each of them.
        pattern = rf"((?:{names})[\w-]{{0,64}}\\?[\"']?\s*[:=]\s*){_VALUE}"
        self._named = re.compile(pattern, re.IGNORECASE) if names else None

    def value(self, value: object) -> Any:
        """A copy that JSON can say, without the values of secret members and without the passwords of URLs."""
        if isinstance(value, str):
            return self.text(value)
        if isinstance(value, Mapping):
            return {self.text(str(name)): self._member(str(name), member) for name, member in value.items()}
        if isinstance(value, list | tuple | set | frozenset):
            return [self.value(member) for member in value]
        if value is None or isinstance(value, bool | int) or (isinstance(value, float) and math.isfinite(value)):
            return value
        return self.text(repr(value))

    def _member(self, name: str, value: object) -> Any:
        return HIDDEN if is_secret(name, self._secret) else self.value(value)

    def text(self, text: str) -> str:
        """``text`` without the passwords of URLs, and without what stands behind a secret name and ``:`` or ``=``."""
        if ":" not in text and "=" not in text:
            return text
        text = _without_passwords(text)
        return self._named.sub(rf"\1{HIDDEN}", text) if self._named else text


@cache
def _scrubber(secret: tuple[str, ...]) -> Scrubber:
    return Scrubber(secret)


def _without_passwords(text: str) -> str:
    """``text`` with the password of each URL in it hidden."""
    before, *after = text.split("://")
    pieces = [before]
    for rest in after:
        # A broker's or a ledger's password may hold a '/' that nobody escaped: it goes on to the last '@'.
        extent = _URL if _BROKER_OR_LEDGER.search(pieces[-1][-30:]) else _AUTHORITY
        found = extent.match(rest)
        credentials, at, _ = (found[0] if found else "").rpartition("@")
        user, colon, _ = credentials.partition(":")
        pieces.append(f"{user}:{HIDDEN}{rest[len(credentials) :]}" if at and colon else rest)
    return "://".join(pieces)


def _shared() -> list[Processor]:
    """What is added to every line at the moment it is logged."""
    return [
        structlog.contextvars.merge_contextvars,
        structlog.stdlib.add_log_level,
        structlog.stdlib.add_logger_name,
        structlog.processors.TimeStamper(fmt="iso", utc=True),
    ]


def _formatter(settings: Settings, *, colors: bool) -> logging.Formatter:
    renderer: Processor = structlog.processors.JSONRenderer()
    if settings.log_format == "console":
        renderer = structlog.dev.ConsoleRenderer(colors=colors, exception_formatter=structlog.dev.plain_traceback)
    scrubber = Scrubber(settings.secret_parameters)

    def scrub(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
        scrubbed: EventDict = scrubber.value(event)
        return scrubbed

    return structlog.stdlib.ProcessorFormatter(
        foreign_pre_chain=[*_shared(), structlog.stdlib.ExtraAdder(), _name_celerys_task],
        processors=[
            structlog.stdlib.ProcessorFormatter.remove_processors_meta,
            structlog.processors.format_exc_info,  # before scrubbing: a traceback can hold a URL
            scrub,
            renderer,
        ],
    )


def _name_celerys_task(_: WrappedLogger, __: str, event: EventDict) -> EventDict:
    """Celery says which task a line is about in ``extra={"data": {"id": ..., "name": ..., ...}}``."""
    data = event.get("data")
    if isinstance(data, Mapping) and "id" in data:
        del event["data"]
        event["task_id"] = data["id"]
        event["work_type"] = data.get("name")
    return event
