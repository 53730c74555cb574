"""A thread that ends by what is no exception to Python has an end all the same, and keeps no slot."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import pytest
from celery import Celery, Task
from celery.concurrency.thread import TaskPool

from tests.claimed import Books, claimed
from tests.claimed import app as claimed_app
from tests.racing import until


class Odd(BaseException):
    """What Python does not call an exception."""


@pytest.fixture
def app() -> Iterator[Celery]:
    """The agents' application, which threads find too."""
    found = claimed_app()
    found.set_default()
    yield found
    found.tasks.pop("test.hooked", None)


@pytest.fixture
def threads(app: Celery) -> Iterator[TaskPool]:
    """A pool of one thread."""
    pool = TaskPool(limit=1, app=app)
    pool.start()
    yield pool
    pool.stop()


@pytest.mark.parametrize("error", [SystemExit(3), Odd("odd")])
def test_what_a_hook_raises_ends_its_run(app: Celery, threads: TaskPool, error: BaseException) -> None:
    class Hooked(Task):
        def before_start(self, *_: Any) -> None:
            raise error

    @app.task(name="test.hooked", shared=False, base=Hooked)
    def hooked() -> None: ...

    books = Books()
    claimed(books, work_type="test.hooked", parameters={}).execute_using_pool(threads)
    assert until(lambda: books.verdicts() == ["Crashed"])
