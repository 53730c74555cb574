"""A process that has died while its event loop was away is noticed, and ends nobody."""

from __future__ import annotations

import os
from types import SimpleNamespace
from typing import Any

from celery.concurrency.asynpool import AsynPool
from kombu.asynchronous import Hub

from chiffon.agent.killing import notice_the_dead


def pool_with(*processes: Any) -> Any:
    """A prefork pool, as far as it is looked at."""
    return SimpleNamespace(_pool=SimpleNamespace(_pool=list(processes)))


def test_who_was_let_go_of_is_watched_again_and_said_to_be_dead() -> None:
    reader, writer = os.pipe()
    os.close(writer)  # the process has died: its sentinel is readable
    dead = SimpleNamespace(_sentinel_poll=None, _popen=SimpleNamespace(sentinel=reader))
    noticed: list[Any] = []
    asynpool = SimpleNamespace(_event_process_exit=lambda hub, process: noticed.append(process))
    notice_the_dead(pool_with(dead))
    hub = Hub()
    AsynPool._track_child_process(asynpool, dead, hub)  # type: ignore[arg-type]
    loop = hub.create_loop()
    while not noticed:
        next(loop)
    assert noticed == [dead]


def test_the_living_are_left_alone_and_other_pools_too() -> None:
    living = SimpleNamespace(_sentinel_poll=7)
    new = SimpleNamespace()
    notice_the_dead(pool_with(living, new))
    assert living._sentinel_poll == 7
    assert not hasattr(new, "_sentinel_poll")
    notice_the_dead(SimpleNamespace())
