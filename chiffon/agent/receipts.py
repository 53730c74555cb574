"""Acknowledgements, gathered: one for all deliveries up to the newest of those that are done without a gap."""

from __future__ import annotations

from collections.abc import Callable


class Receipts:
    """The deliveries of one channel. Used by the event loop only.

    ``acknowledge``: tells the broker of a delivery tag, or with True of all up to it (AMQP's ``multiple``).
    """

    def __init__(self, acknowledge: Callable[[int, bool], None]) -> None:
        self._acknowledge = acknowledge
        self._open: dict[int, bool] = {}
        """By delivery tag, in their order: whether it is done."""

    def __len__(self) -> int:
        return len(self._open)

    def came(self, tag: int) -> None:
        """A delivery is in hand."""
        self._open[tag] = False

    def done(self, tag: int) -> None:
        """A delivery may be acknowledged, at the next `flush`."""
        if tag in self._open:
            self._open[tag] = True

    def answered(self, tag: int) -> None:
        """The broker was told otherwise of a delivery."""
        self._open.pop(tag, None)

    def flush(self) -> None:
        """Acknowledge what is done."""
        done = [tag for tag, is_done in self._open.items() if is_done]
        if not done:
            return
        together = 0
        for tag, is_done in self._open.items():
            if not is_done:
                break
            together = tag
        for tag in done:
            del self._open[tag]
        if together:
            self._acknowledge(together, True)
        for tag in done:
            if tag > together:
                self._acknowledge(tag, False)
