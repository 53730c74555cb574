"""How health is put into words; no broker is there."""

from __future__ import annotations

import pytest

from chiffon.config import Settings
from chiffon.dispatch.health import BrokerProbe, SchemaGuard, look_at_health
from chiffon.dispatch.ring import Ringer, RingerState
from chiffon.ledger.connect import Ledger

AWAY = "amqp://127.0.0.1:1//"


class Current(SchemaGuard):
    """A schema that is as it should be."""

    def __init__(self) -> None:
        super().__init__(Ledger("postgresql+psycopg2://127.0.0.1:1/nothing"))

    def check_again(self) -> None:
        """Nothing is wrong."""


class Answering(BrokerProbe):
    """A broker that answers."""

    def __init__(self) -> None:
        super().__init__(AWAY)

    def problem(self) -> str | None:
        """None."""
        return None


class Saying(Ringer):
    """A ringer that is as the test says."""

    def __init__(self, state: RingerState) -> None:
        super().__init__(Settings(broker_url=AWAY), Ledger("postgresql+psycopg2://127.0.0.1:1/nothing"))
        self._said = state

    def state(self) -> RingerState:
        """What the test says."""
        return self._said


@pytest.mark.parametrize(
    ("state", "broker", "ringer", "is_well"),
    [
        (RingerState(True, False, False, "nothing has been rung yet"), "ok", "idle", True),
        (RingerState(True, True, False, "rings"), "ok", "connected", True),
        (RingerState(True, False, False, "other arguments", waits=True), "ok", "waiting", False),
        (RingerState(True, True, True, "blocked"), "blocked", "connected", False),
        (RingerState(False, False, False, "the ringer's thread has died"), "ok", "dead", False),
    ],
)
def test_health_is_what_the_ringer_says(state: RingerState, broker: str, ringer: str, is_well: bool) -> None:
    found = look_at_health(Current(), Answering(), Saying(state))
    assert (found.broker, found.ringer, found.problem is None) == (broker, ringer, is_well)


def test_a_broker_that_is_away_outranks_the_ringer() -> None:
    found = look_at_health(Current(), BrokerProbe(AWAY), Saying(RingerState(True, True, False, "rings")))
    assert found.broker == "unreachable"
    assert found.problem is not None
    assert "127.0.0.1" not in found.problem


def test_the_broker_is_looked_at_every_few_seconds_at_most(monkeypatch: pytest.MonkeyPatch) -> None:
    now, looks = [0.0], []

    def look(_: BrokerProbe) -> str | None:
        looks.append(now[0])
        return None

    monkeypatch.setattr(BrokerProbe, "_look", look)
    probe = BrokerProbe(AWAY, clock=lambda: now[0])
    for moment in (0.0, 1.0, 4.9, 5.0, 6.0, 10.0):
        now[0] = moment
        assert probe.problem() is None
    assert looks == [0.0, 5.0, 10.0]
