"""Letters, as they were."""

from __future__ import annotations

from chiffon import WorkContext, work
from tests.e2e.work.diary import write


@work("post.letter", timeout=60)
def letter(context: WorkContext, path: str, text: str) -> str:
    """Write a letter."""
    write(path, context, text)
    return text
