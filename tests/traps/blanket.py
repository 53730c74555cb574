"""A consumer as one might write it: whatever a message does to it is caught, and the message is rejected."""

from __future__ import annotations

import logging
from typing import Any

from celery.worker.consumer.consumer import Consumer

logger = logging.getLogger(__name__)


class BlanketConsumer(Consumer):
    """Stock Celery's consumer in a blanket ``except``."""

    def create_task_handler(self, *arguments: Any, **options: Any) -> Any:
        """What takes each delivery."""
        inner = super().create_task_handler(*arguments, **options)

        def handle(message: Any) -> None:
            try:
                inner(message)
            except Exception as error:  # noqa: BLE001 -- the trap itself
                message.reject_log_error(logger, (type(error),))

        return handle
