"""A pool has no time limit of its own: it would end what brings none along, whatever the limits of its members are."""

from __future__ import annotations

from collections.abc import Iterator
from types import SimpleNamespace
from typing import Any

import pytest
from celery.concurrency.prefork import TaskPool

from chiffon.agent.limits import leave_limits_to_tasks
from tests.claimed import real_pool


@pytest.fixture
def pool() -> Iterator[TaskPool]:
    """A real pool of somebody who wants no work to take longer than a second."""
    with real_pool(timeout=1, soft_timeout=0.5) as found:
        yield found


def test_what_brings_no_limit_along_has_none(pool: TaskPool) -> None:
    leave_limits_to_tasks(pool, [], soft=0.5)
    job: Any = pool.apply_async(abs, (1,))
    assert (job._timeout, job._soft_timeout) == (None, None)


def test_who_has_no_soft_limit_has_the_users_and_who_has_one_keeps_it() -> None:
    has_one, has_none = SimpleNamespace(soft_time_limit=7), SimpleNamespace(soft_time_limit=None)
    leave_limits_to_tasks(None, [has_one, has_none], soft=0.5)
    assert (has_one.soft_time_limit, has_none.soft_time_limit) == (7, 0.5)
