"""What an audit finds, and what everything that it finds is counted as."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

Fault = Literal["lost", "doubled", "stuck", "wrong"]


@dataclass(frozen=True)
class Finding:
    """Something that must not be. ``about``: the task, or whatever else it is counted by."""

    fault: Fault
    about: str
    says: str
