"""The same tasks as work of Chiffon's."""

from __future__ import annotations

from benchmarks.apps.deeds import DEEDS
from chiffon import work

for name, deed in DEEDS.items():
    work(name)(deed)
