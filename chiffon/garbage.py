"""What the garbage collector need not look at: a process that serves has loaded nearly all of it once and for all."""

from __future__ import annotations

import gc

YOUNG = 20_000
"""Objects that may be made before the garbage collector looks at them: a few hundred tasks' worth."""


def spare_what_stays() -> None:
    """Have the garbage collector leave alone what has been loaded by now: it will not go.

    Else it looks through all of it again and again, for a fifth of an agent's time under load; and in a forked process,
    which shares these pages until somebody writes on them, it would make copies of them all.
    """
    gc.collect()
    gc.freeze()
    gc.set_threshold(YOUNG, *gc.get_threshold()[1:])
