"""What stock Celery does with a message, a death or an outage, to be set beside what Chiffon does with the same."""

from __future__ import annotations

from typing import Any

DEEDS: dict[str, Any] = {"workers": "workers,tests.e2e.work,tests.traps.work", "sweep_seconds": 0.2}
"""Settings of an agent that does the deeds of traps too, and hurries to ring for what came without the API."""
