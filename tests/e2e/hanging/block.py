"""On SIGUSR2 the agent's main thread, and its event loop with it, stands still for ever."""

from __future__ import annotations

import signal
import time
from typing import Any

from celery import signals

from chiffon.agent.watch import HubWatch

HUNG_AFTER = 10.0
"""Seconds, instead of the product's 45, until the watch takes the loop to be hung."""


@signals.celeryd_init.connect
def be_impatient(**_: Any) -> None:
    """Have this agent's watch wait no longer than a scenario may take."""
    HubWatch.__init__.__kwdefaults__.update(every=1.0, hung_after=HUNG_AFTER)


@signals.worker_ready.connect
def listen(**_: Any) -> None:
    """Take the signal, in the main thread."""
    signal.signal(signal.SIGUSR2, stand_still)


def stand_still(*_: Any) -> None:
    """Never return."""
    while True:
        time.sleep(1)
