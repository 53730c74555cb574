"""Letters that may be registered, and parcels."""

from __future__ import annotations

from chiffon import WorkContext, work
from tests.e2e.work.diary import write


@work("post.letter", timeout=60)
def letter(context: WorkContext, path: str, text: str, registered: bool = False) -> str:
    """Write a letter."""
    write(path, context, f"{text}, registered" if registered else text)
    return text


@work("post.parcel", timeout=60)
def parcel(context: WorkContext, path: str, grams: int) -> int:
    """Send a parcel."""
    write(path, context, f"{grams} g")
    return grams
