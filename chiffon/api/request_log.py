"""A log line for each request, with the ids of the task that it was about."""

from __future__ import annotations

import logging
import time

import structlog
from flask import Flask, Response, g, request
from structlog.contextvars import bind_contextvars, clear_contextvars

log = structlog.get_logger(__name__)
_is_logged = logging.getLogger(__name__).isEnabledFor


def install(app: Flask) -> None:
    """Log every request of ``app``."""
    app.before_request(_begin)
    app.after_request(_end)


def about(*, task_id: str, request_id: str, trace_id: str) -> None:
    """Whatever this request logs from here on is about this task."""
    bind_contextvars(task_id=task_id, request_id=request_id, trace_id=trace_id)


def about_task(task_id: str) -> None:
    """The same, of whose task no more is known here."""
    bind_contextvars(task_id=task_id)


def _begin() -> None:
    clear_contextvars()
    g.began = time.perf_counter()


def _end(response: Response) -> Response:
    is_probe = request.path.startswith("/health/") and response.status_code == 200
    level = logging.DEBUG if is_probe else logging.INFO
    if not _is_logged(level):  # to find that out by a whole event costs as much as to read the request
        return response
    log.log(
        level,
        "request",
        method=request.method,
        path=request.script_root + request.path,
        status=response.status_code,
        milliseconds=round((time.perf_counter() - g.began) * 1000, 1) if "began" in g else None,
    )
    return response
