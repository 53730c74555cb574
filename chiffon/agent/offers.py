"""What was offered to the clerk and is not claimed yet: what is next, what somebody holds, and what may be claimed."""

from __future__ import annotations

import time
from collections.abc import Collection, Sequence

from chiffon.agent.claiming import Answer, twins
from chiffon.agent.commands import Offer
from chiffon.agent.reading import Doorbell
from chiffon.domain.tasks import NotDue

DEFER = 5.0
"""Seconds until an offer is tried again whose row somebody else was holding."""


class Offers:
    """Used by the clerk's thread only."""

    def __init__(self) -> None:
        self._open: list[Offer] = []
        self._asked: set[str] = set()
        """The tokens of a batch whose claim is not answered: it may have been made."""
        self._deferred: list[tuple[float, Offer]] = []
        self._held_up: set[str] = set()
        """The tokens of offers that were deferred."""

    def __len__(self) -> int:
        return len(self._open)

    def add(self, offer: Offer) -> None:
        """A delivery may be run."""
        self._open.append(offer)

    def batch(self, most: int) -> list[Offer]:
        """The next to be claimed together; they stay until they are `answered`: their claim may have to be repeated."""
        first = self._open[:most]
        later = _tokens(twins(first))
        found = [offer for offer in first if offer.token not in later]
        self._asked |= _tokens(found)
        return found

    def answered(self, batch: Sequence[Offer], answers: Sequence[Answer]) -> list[Answer]:
        """A batch was claimed. What got no answer is held by somebody, and tried later; returned is who gets one here.

        A doorbell is tried once more only: it takes up a slot, and the sweeper rings again.
        """
        known, gone = {offer.token for offer, _ in answers}, _tokens(batch)
        self._asked -= gone
        self._open = [offer for offer in self._open if offer.token not in gone]
        held_up = [offer for offer in batch if offer.token not in known]
        given_up = [o for o in held_up if o.token in self._held_up and isinstance(o.what, Doorbell)]
        again = [offer for offer in held_up if offer not in given_up]
        self._deferred += [(time.monotonic() + DEFER, offer) for offer in again]
        self._held_up = {offer.token for _, offer in self._deferred}
        return [(offer, NotDue(offer.task_id)) for offer in given_up]

    def resume(self, now: float) -> None:
        """Take up again what was deferred until this monotonic time."""
        self._open += [offer for at, offer in self._deferred if at <= now]
        self._deferred = [(at, offer) for at, offer in self._deferred if at > now]

    def withdrawn(self) -> list[Offer]:
        """Forget all that is certainly not claimed, and return it: the agent ends."""
        found = [offer for offer in self._open if offer.token not in self._asked]
        found += [offer for _, offer in self._deferred]
        self._open = [offer for offer in self._open if offer.token in self._asked]
        self._deferred = []
        return found


def _tokens(offers: Collection[Offer]) -> set[str]:
    return {offer.token for offer in offers}
