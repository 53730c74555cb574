"""What a piece of work may know of itself, and say."""

from __future__ import annotations

import math

import pytest

from chiffon import WorkContext


def context(heard: list[tuple[float | None, str | None]], *, cancelled: bool = False) -> WorkContext:
    """A context that notes what it is told."""
    return WorkContext(
        "t", "0" * 32, "r", 1, None, lambda percent, note: heard.append((percent, note)), lambda: cancelled
    )


def test_progress_is_passed_on_as_it_was_said() -> None:
    heard: list[tuple[float | None, str | None]] = []
    me = context(heard)
    me.progress(0)
    me.progress(100, "done")
    me.progress(note="half")
    assert heard == [(0, None), (100, "done"), (None, "half")]


@pytest.mark.parametrize("percent", [-0.1, 100.1, math.nan, math.inf])
def test_a_percentage_that_is_none_is_refused(percent: float) -> None:
    heard: list[tuple[float | None, str | None]] = []
    with pytest.raises(ValueError, match="between 0 and 100"):
        context(heard).progress(percent)
    assert heard == []


def test_work_may_ask_whether_it_is_still_wanted() -> None:
    assert context([], cancelled=True).is_cancelled()
    assert not context([]).is_cancelled()


def test_a_context_shows_who_it_is_and_not_how_it_speaks() -> None:
    assert repr(context([])).startswith("WorkContext(task_id='t', trace_id=")
    assert "lambda" not in repr(context([]))
