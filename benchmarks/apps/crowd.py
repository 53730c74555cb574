"""Clients at once: threads that share the work, or that act at given times."""

from __future__ import annotations

import itertools
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor

Act = Callable[[int], None]
"""Does the task ``key``, from its dispatch to whatever the client waits for."""

WARM_UP = 1_000_000_000
"""The first key of tasks that only open connections and warm caches."""

_HEAD_START = 0.2
"""Seconds until the first arrival."""


def share(clients: int, count: int, make_client: Callable[[], Act]) -> float:
    """Have the clients do ``count`` tasks as fast as they can; return the seconds. A client is made in its thread."""
    keys = itertools.count()
    ready = threading.Barrier(clients + 1)

    def work() -> None:
        act = make_client()
        ready.wait()
        while (key := next(keys)) < count:
            act(key)

    with ThreadPoolExecutor(clients) as crowd:
        done = [crowd.submit(work) for _ in range(clients)]
        ready.wait()
        begun = time.monotonic()
        for one in done:
            one.result()
        return time.monotonic() - begun


def arrive(rate: float, count: int, clients: int, make_client: Callable[[], Act]) -> list[tuple[int, int, int]]:
    """Have ``rate`` tasks a second arrive, whether or not the earlier are done.

    Returns:
        For each task its key, when it was to be dispatched and when its client had what it waited for (nanoseconds).
        A client that is late counts as waiting: else the worst moments would hide themselves.
    """
    interval = 1e9 / rate
    ready = threading.Barrier(clients)
    begin = threading.Event()
    start = 0

    def work(number: int) -> Iterator[tuple[int, int, int]]:
        nonlocal start
        act = make_client()
        for warm in range(2):
            act(WARM_UP + 2 * number + warm)
        if ready.wait() == 0:
            start = time.monotonic_ns() + int(_HEAD_START * 1e9)
            begin.set()
        begin.wait()
        for key in range(number, count, clients):
            due = start + int(key * interval)
            time.sleep(max(0, due - time.monotonic_ns()) / 1e9)
            act(key)
            yield key, due, time.monotonic_ns()

    with ThreadPoolExecutor(clients) as crowd:
        return sorted(itertools.chain(*crowd.map(lambda number: list(work(number)), range(clients))))
