"""The plan: what a seed says is done, when, and to whom. The same seed gives the same plan, everywhere and always."""

from __future__ import annotations

import random
from collections.abc import Iterator
from dataclasses import dataclass, field
from typing import Any

from tests.chaos.relay import STATEMENTS

AGENTS = ("ash", "birch", "cedar")
THREADED = frozenset({"cedar"})
"""The agents that run their work in threads (``-P threads``)."""

API = "api"
PROGRAMS = (API, *AGENTS)
BROKER, POSTGRES = "broker", "postgres"
CLIENTS = 3

_FIRST, _LAST = 0.05, 0.88
"""The part of the time in which faults begin, as a fraction: what begins last is to be felt as well."""


@dataclass(frozen=True)
class Kind:
    """A kind of fault. ``targets``: to whom it may be done. ``seconds``: how long, from and to. ``share``: in a deck.

    ``details``: of which one is chosen.
    """

    name: str
    targets: tuple[str, ...]
    seconds: tuple[float, float] = (0.0, 0.0)
    share: int = 1
    details: tuple[str, ...] = ("",)


KINDS = (
    Kind("agent_kill", AGENTS, (0.3, 4), share=3),
    Kind("agent_stop", AGENTS, (1, 13), share=2),
    Kind("agent_restart", AGENTS, (0, 1)),
    Kind("agent_hurry", AGENTS, (0, 1)),
    Kind("child_kill", AGENTS[:2], share=2),
    Kind("api_kill", (API,), (0.3, 3)),
    Kind("api_restart", (API,), (0, 1)),
    Kind("api_stop", (API,), (1, 6)),
    Kind("broker_kill", (BROKER,), (0.3, 6), share=2),
    Kind("broker_restart", (BROKER,), (0, 4)),
    Kind("broker_stop", (BROKER,), (2, 15)),
    Kind("broker_wipe", (BROKER,), (0.3, 4), share=2),
    Kind("broker_alarm", (BROKER,), (4, 12), share=2, details=("memory", "disk")),
    Kind("postgres_kill", (POSTGRES,), (0.2, 6)),
    Kind("postgres_restart", (POSTGRES,), (0, 4), share=2),
    Kind("postgres_stop", (POSTGRES,), (2, 12)),
    Kind("cut", PROGRAMS, share=2, details=(BROKER, POSTGRES)),
    Kind("refuse", PROGRAMS, (2, 10), details=(BROKER, POSTGRES)),
    Kind("delay", PROGRAMS, (3, 10), details=(BROKER, POSTGRES)),
    Kind("silence", PROGRAMS, (3, 15), share=2, details=(BROKER, POSTGRES)),
    Kind("half_open", PROGRAMS, share=2, details=(BROKER, POSTGRES)),
    Kind("swallow_commit", PROGRAMS, share=6, details=tuple(STATEMENTS)),
    Kind("swallow_confirm", PROGRAMS),
    Kind("garbage", (BROKER,)),
    Kind("duplicates", (BROKER,), share=2),
)
_LONG = frozenset({"broker_kill", "broker_stop", "postgres_kill", "postgres_stop", "silence"})
_LONG_SECONDS = (20.0, 60.0)
_LONG_FROM = 10 * 60.0
_LONG_CHANCE = 0.2
"""What may last for long, in a run that is long enough itself; all in seconds."""

_TOGETHER = 0.25
"""The chance that a fault comes with the one before it: troubles seldom come alone."""

_BURSTS = 0.3
"""The part of the batches that are many short tasks at once."""

_BY_NAME = {kind.name: kind for kind in KINDS}
_OF_THE_API = frozenset({"accept", "cancel", "replay"})
_OF_ALL = frozenset({"ring", "any"})
"""What others than agents commit: an answer to nobody's commit cannot be swallowed."""


LOCAL = frozenset(kind.name for kind in KINDS if kind.name.partition("_")[0] in {"agent", "api", "child"})
"""Faults of a program itself."""

CONTENTS = frozenset({"garbage", "duplicates"})
"""Faults of what is published."""


@dataclass(frozen=True)
class Fault:
    """One thing that goes wrong. ``at``: seconds from the beginning. ``pick``: a number from 0 to 1, to choose by."""

    at: float
    kind: str
    target: str
    seconds: float
    detail: str
    pick: float

    def __str__(self) -> str:
        """In a line."""
        lasting = f" for {self.seconds:.1f} s" if self.seconds else ""
        return f"{self.at:7.1f}  {self.kind} {self.target} {self.detail}{lasting}"


def way(fault: Fault) -> str:
    """Which service a fault of a program's connections keeps it from."""
    if fault.kind == "swallow_confirm":
        return BROKER
    return POSTGRES if fault.kind == "swallow_commit" else fault.detail


@dataclass(frozen=True)
class Order:
    """Work that a client wants done. ``request_id`` names it in the machine; ``fields``: the rest of the dispatch."""

    request_id: str
    work_type: str
    parameters: dict[str, Any]
    fields: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Errand:
    """One thing that a client does. ``verb``: dispatch, batch, direct, cancel, replay, replay_letter, discard_letter.

    ``orders``: what it dispatches. ``repeats``: how often it sends the same again. ``pick``: chooses among what it
    remembers.
    """

    at: float
    verb: str
    orders: tuple[Order, ...] = ()
    repeats: int = 0
    pick: float = 0.0


@dataclass(frozen=True)
class Plan:
    """All of it. ``seconds``: how long it goes on. ``errands``: by client."""

    seed: int
    seconds: float
    faults: tuple[Fault, ...]
    errands: tuple[tuple[Errand, ...], ...]

    @property
    def orders(self) -> list[Order]:
        """Every order, of whichever client."""
        return [order for client in self.errands for errand in client for order in errand.orders]


def make_plan(seed: int, *, tasks: int, minutes: float, faults: int, kinds: tuple[str, ...] = ()) -> Plan:
    """The plan of a seed. ``kinds``: to which the faults are limited; all by default."""
    seconds = minutes * 60
    return Plan(
        seed,
        seconds,
        tuple(_faults(random.Random(f"{seed} faults"), seconds, faults, kinds or tuple(_BY_NAME))),
        tuple(_errands(random.Random(f"{seed} client {number}"), seed, number, seconds, tasks)
              for number in range(CLIENTS)),
    )  # fmt: skip


def _faults(dice: random.Random, seconds: float, many: int, names: tuple[str, ...]) -> Iterator[Fault]:
    deck: list[str] = []
    at = 0.0
    for number in range(many):
        if not deck:  # every kind has its turn before one has the next
            deck = [name for name in names for _ in range(_BY_NAME[name].share)]
            dice.shuffle(deck)
        kind = _BY_NAME[deck.pop()]
        detail = dice.choice(kind.details)
        moment = seconds * (_FIRST + (_LAST - _FIRST) * (number + dice.random()) / many)
        at = at + dice.random() if number and dice.random() < _TOGETHER else max(at, moment)
        is_long = kind.name in _LONG and seconds >= _LONG_FROM and dice.random() < _LONG_CHANCE
        yield Fault(
            at=at,
            kind=kind.name,
            target=dice.choice(_who_commits(detail) if kind.name == "swallow_commit" else kind.targets),
            seconds=round(dice.uniform(*(_LONG_SECONDS if is_long else kind.seconds)), 2),
            detail=detail,
            pick=dice.random(),
        )


def _who_commits(detail: str) -> tuple[str, ...]:
    if detail in _OF_ALL:
        return PROGRAMS
    return (API,) if detail in _OF_THE_API else AGENTS


def _errands(dice: random.Random, seed: int, client: int, seconds: float, tasks: int) -> list[Errand]:
    left = tasks // CLIENTS + (client < tasks % CLIENTS)
    maker = _Maker(dice, f"chaos-{seed}-{client}")
    errands: list[Errand] = []
    while left > 0:
        errand = maker.errand(left)
        left -= len(errand.orders)
        errands.append(errand)
    times = sorted(dice.uniform(0, 0.95 * seconds) for _ in errands)
    return [Errand(at, e.verb, e.orders, e.repeats, e.pick) for at, e in zip(times, errands, strict=True)]


class _Maker:
    """Throws dice for errands."""

    def __init__(self, dice: random.Random, name: str) -> None:
        self._dice = dice
        self._name = name
        self._number = 0

    def errand(self, most: int) -> Errand:
        """Any errand, with at most so many orders."""
        dice = self._dice
        verb = dice.choices(
            ("dispatch", "batch", "direct", "cancel", "replay", "replay_letter", "discard_letter"),
            (74, 5, 5, 7, 5, 2, 2),
        )[0]
        many = {"dispatch": 1, "batch": min(most, dice.randint(2, 12)), "direct": 1}.get(verb, 0)
        orders = tuple(self._order() for _ in range(many))
        if verb == "batch" and dice.random() < _BURSTS:
            orders = tuple(self._named("chaos.quick", {}) for _ in range(min(most, dice.randint(20, 40))))
        if verb == "direct":
            orders = (self._named("chaos.note", {"seconds": round(dice.uniform(0, 0.5), 2)}),)
        repeats = dice.choice((1, 2)) if dice.random() < 0.15 else 0
        return Errand(0.0, verb, orders, repeats, dice.random())

    def _order(self) -> Order:
        dice = self._dice
        makers = {
            self._note: 45, self._long: 10, self._late: 7, self._expiring: 4, self._flaky: 9, self._failing: 5,
            self._deadly: 3, self._poison: 2, self._slow: 4, self._chain: 6, self._chord: 3, self._broken_chain: 2,
        }  # fmt: skip
        return dice.choices(list(makers), list(makers.values()))[0]()

    def _named(self, work_type: str, parameters: dict[str, Any], **fields: Any) -> Order:
        self._number += 1
        return Order(f"{self._name}-{self._number}", work_type, parameters, fields)

    def _note(self) -> Order:
        dice = self._dice
        return self._named(
            "chaos.note", {"seconds": round(dice.uniform(0, 0.6), 2)}, priority=dice.choice((1, 2, 3, 3, 4, 5))
        )

    def _long(self) -> Order:
        return self._named("chaos.note", {"seconds": round(self._dice.uniform(1, 5), 2)})

    def _late(self) -> Order:
        delay = round(self._dice.uniform(0.5, 15), 2)
        return self._named("chaos.note", {"seconds": 0.1}, delay_seconds=delay)

    def _expiring(self) -> Order:
        return self._named("chaos.note", {"seconds": 0.3}, expires_in_seconds=round(self._dice.uniform(0.5, 4), 2))

    def _flaky(self) -> Order:
        return self._named("chaos.flaky", {"failures": self._dice.randint(1, 4), "seconds": 0.2})

    def _failing(self) -> Order:
        return self._named("chaos.fail", {})

    def _deadly(self) -> Order:
        return self._death(self._dice.choice((1, 2)))

    def _poison(self) -> Order:
        return self._death(1_000)

    def _death(self, times: int) -> Order:
        how = self._dice.choice(("exit", "kill", "sys.exit", "memory", "segfault"))
        return self._named("chaos.die", {"how": how, "times": times, "after": self._dice.choice((0.0, 0.1))})

    def _slow(self) -> Order:
        return self._named("chaos.slow", {"seconds": 10.0, "stubborn": self._dice.random() < 0.5})

    def _chain(self) -> Order:
        return self._named("chaos.chain", {"steps": self._dice.randint(2, 4), "broken": False})

    def _broken_chain(self) -> Order:
        return self._named("chaos.chain", {"steps": self._dice.randint(2, 4), "broken": True})

    def _chord(self) -> Order:
        return self._named("chaos.chord", {"parts": self._dice.randint(2, 4)})
