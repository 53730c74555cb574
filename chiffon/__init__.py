"""Chiffon's public face. Celery is imported only by whoever asks for the application: `celery -A chiffon`."""

from __future__ import annotations

from typing import Any

from chiffon.config import SettingsError, settings
from chiffon.domain.context import WorkContext
from chiffon.domain.errors import ChiffonError
from chiffon.domain.retry import Fail, Retry, RetryPolicy
from chiffon.domain.work import work

__all__ = ["Fail", "Retry", "RetryPolicy", "WorkContext", "app", "settings", "submit", "work"]
__version__ = "0.1.0"


def __getattr__(name: str) -> Any:
    if name in {"app", "celery"}:
        try:
            from chiffon.agent.app import app
        except (SettingsError, ChiffonError) as error:  # Celery's command line would show a traceback
            raise SystemExit(f"chiffon: {error}") from None
        return app
    if name == "submit":
        from chiffon.dispatch.submit import submit

        return submit
    raise AttributeError(f"module 'chiffon' has no attribute {name!r}")
