"""A run that is under way, as a scenario needs one before it breaks something."""

from __future__ import annotations

from tests.e2e.diary import Diary
from tests.e2e.http_client import HttpClient
from tests.e2e.waiting import eventually


def begin_a_run(api: HttpClient, diary: Diary, seconds: float) -> str:
    """Dispatch a run that takes so long, and return its task once it is under way."""
    task_id = api.dispatch("test.run", {"path": str(diary.path), "seconds": seconds})
    eventually("the run to be under way", lambda: diary.notes(task_id) == ["begun"])
    return task_id
