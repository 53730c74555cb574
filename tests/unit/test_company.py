"""Company: one asks for all, only a crowd waits for others, and an error reaches everybody whom it concerns."""

from __future__ import annotations

import threading
from collections.abc import Sequence
from types import SimpleNamespace

import pytest

from chiffon.dispatch.company import MOST, PAUSE, Company
from tests.racing import Thread, until


class Oracle:
    """Answers with the double, and not before it may."""

    def __init__(self) -> None:
        self.asked: list[list[int]] = []
        self.may = threading.Event()

    def __call__(self, questions: Sequence[int]) -> list[int]:
        self.asked.append(list(questions))
        self.may.wait(10)
        if 13 in questions:
            raise ValueError("13")
        return [2 * question for question in questions]


@pytest.fixture
def oracle() -> Oracle:
    return Oracle()


def waiting(company: Company[int, int]) -> int:
    """How many wait for their turn."""
    return len(company._waiting)


def test_who_comes_alone_is_answered_at_once(oracle: Oracle) -> None:
    oracle.may.set()
    company = Company(oracle, apart=lambda question: question)
    assert [company.ask(1), company.ask(2)] == [2, 4]
    assert oracle.asked == [[1], [2]]


def test_who_comes_meanwhile_is_asked_for_together(oracle: Oracle) -> None:
    company = Company(oracle, apart=lambda question: question)
    first = Thread(lambda: company.ask(1))
    until(lambda: oracle.asked)
    others = [Thread(lambda number=number: company.ask(number)) for number in range(2, 9)]
    until(lambda: waiting(company) == len(others))
    oracle.may.set()
    assert [thread.answer() for thread in (first, *others)] == [2 * number for number in range(1, 9)]
    assert [len(questions) for questions in oracle.asked] == [1, 7]


def test_after_a_crowd_the_next_waits_for_others(oracle: Oracle, monkeypatch: pytest.MonkeyPatch) -> None:
    oracle.may.set()
    company = Company(oracle, apart=lambda question: question)
    pauses: list[float] = []

    def pause(seconds: float) -> None:
        pauses.append(seconds)
        if len(pauses) == 1:  # two more come while the first of them waits
            late.append(Thread(lambda: company.ask(3)))
            late.append(Thread(lambda: company.ask(4)))
            until(lambda: waiting(company) == 3)

    late: list[Thread] = []
    monkeypatch.setattr("chiffon.dispatch.company.time", SimpleNamespace(sleep=pause))
    assert company.ask(1) == 2
    assert pauses == []
    company._was_alone = False
    assert company.ask(2) == 4
    assert [thread.answer() for thread in late] == [6, 8]
    assert [len(questions) for questions in oracle.asked] == [1, 3]
    assert company.ask(5) == 10
    assert company.ask(6) == 12
    assert pauses == [PAUSE, PAUSE], "who comes after one that was alone waits for nobody"


def test_what_must_be_apart_is_asked_one_after_the_other(oracle: Oracle) -> None:
    company = Company(oracle, apart=lambda question: question % 10)
    first = Thread(lambda: company.ask(1))
    until(lambda: oracle.asked)
    others = [Thread(lambda number=number: company.ask(number)) for number in (2, 12, 22, 3)]
    until(lambda: waiting(company) == len(others))
    oracle.may.set()
    assert [thread.answer() for thread in (first, *others)] == [2, 4, 24, 44, 6]
    assert all(len({question % 10 for question in questions}) == len(questions) for questions in oracle.asked)
    assert len(oracle.asked) == 4


def test_an_error_reaches_those_who_were_asked_for_and_no_others(oracle: Oracle) -> None:
    company = Company(oracle, apart=lambda question: question)
    first = Thread(lambda: company.ask(1))
    until(lambda: oracle.asked)
    others = [Thread(lambda number=number: company.ask(number)) for number in (13, 14)]
    until(lambda: waiting(company) == len(others))
    oracle.may.set()
    assert first.answer() == 2
    for thread in others:
        with pytest.raises(ValueError, match="13"):
            thread.answer()
    assert company.ask(5) == 10


def test_no_more_go_together_than_may(oracle: Oracle) -> None:
    company = Company(oracle, apart=lambda question: question)
    first = Thread(lambda: company.ask(1000))
    until(lambda: oracle.asked)
    others = [Thread(lambda number=number: company.ask(number)) for number in range(20, 20 + MOST + 5)]
    until(lambda: waiting(company) == len(others))
    oracle.may.set()
    assert sorted(thread.answer() for thread in others) == [2 * number for number in range(20, 20 + MOST + 5)]
    assert [len(questions) for questions in oracle.asked] == [1, MOST, 5]
    assert first.answer() == 2000
