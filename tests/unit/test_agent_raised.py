"""What a run says of its end is plain: the agent, which need not have the work's classes, can read it and lives on."""

from __future__ import annotations

import enum
import io
import pickle
from typing import Any

import pytest
from celery import Celery, Task, chord
from celery.exceptions import Reject

from chiffon.agent.app import create_app
from chiffon.agent.run import Report
from chiffon.agent.slate import Slates
from chiffon.agent.trace import do_work
from chiffon.config import Settings
from chiffon.domain.verdicts import Completed, DeadLettered, Failed, RetryLater
from tests.api import NOBODY
from tests.runs import FACTS, raising


class Colour(enum.StrEnum):
    """Text, to JSON and to whoever compares it."""

    RED = "red"


class Urgency(enum.IntEnum):
    """A number, to JSON."""

    HIGH = 5


class Words(str):
    """Text with ways of its own."""

    __slots__ = ()

    def __repr__(self) -> str:
        return Words("words")


class Broken(Exception):
    """A failure that the agent's main process has never heard of."""

    def __str__(self) -> str:
        return Words("it broke")


class Unsayable(Exception):
    """One that cannot say what it is."""

    def __str__(self) -> str:
        raise LookupError("no words")


class Unstoppable(BaseException):
    """One that is not even an exception to Python."""

    __str__ = Unsayable.__str__


class Agent(pickle.Unpickler):
    """Reads as the main process of an agent does that cannot import the work."""

    def find_class(self, module: str, name: str) -> Any:
        """Find what is not the work's."""
        if module == __name__:
            raise ModuleNotFoundError(f"No module named {module!r}")
        return super().find_class(module, name)


def read(report: Report) -> Report:
    """The report as the main process has it."""
    found: Report = Agent(io.BytesIO(pickle.dumps(report))).load()
    return found


@pytest.fixture
def app() -> Celery:
    """The agents' application; what it runs here needs no ledger."""
    return create_app(Settings(database_url=f"postgresql://{NOBODY}/nothing"))


def run(name: str, **embed: Any) -> Report:
    """One run of a task of the group `g`."""
    request = {"id": "own", "task": name, "root_id": "own", "group": "g", "retries": 0, "delivery_info": {}}
    return do_work(name, "own", request, ([], {}, embed), FACTS)


def test_the_arguments_of_a_failure_are_what_json_says_of_them(app: Celery) -> None:
    report = read(run(raising(app, Broken(Colour.RED, Urgency.HIGH, [Words("w"), {Colour.RED: 1.5}], None, True))))
    assert isinstance(report.verdict, Failed)
    arguments = report.verdict.error.arguments
    assert arguments == ("red", 5, ["w", {"red": 1.5}], None, True)
    assert arguments is not None
    assert [type(argument) for argument in arguments] == [str, int, list, type(None), bool]


def test_what_json_cannot_say_is_left_out(app: Celery) -> None:
    report = read(run(raising(app, Broken(Broken()), retries=1)))
    assert isinstance(report.verdict, RetryLater)
    assert report.verdict.error.arguments is None
    assert report.verdict.error.message == "it broke"


def test_what_cannot_put_itself_into_words_is_retried_as_what_it_is(app: Celery) -> None:
    report = read(run(raising(app, Unsayable("x"), retries=1)))
    assert isinstance(report.verdict, RetryLater)
    assert (report.verdict.error.type, report.verdict.error.arguments) == ("Unsayable", ("x",))
    assert report.verdict.error.message == "Unsayable, which cannot be put into words"


@pytest.mark.parametrize("error", [Unsayable("x"), Reject(Unsayable("x"), requeue=False), Unstoppable("x")])
def test_it_fails_as_any_other_once_no_retry_is_left(app: Celery, error: BaseException) -> None:
    report = read(run(raising(app, error)))
    assert isinstance(report.verdict, Failed | DeadLettered)
    assert report.verdict.error.type in {"Unsayable", "Reject", "RuntimeError"}


def test_a_slate_tells_the_agent_of_a_failure_in_plain_words_too(app: Celery, monkeypatch: pytest.MonkeyPatch) -> None:
    slate = Slates(1).lend()
    assert slate is not None
    slate.wipe(1)
    assert slate.end(0, run(raising(app, Broken(Colour.RED))))
    monkeypatch.setattr(pickle, "loads", lambda said: Agent(io.BytesIO(said)).load())
    [(_, _, report)], _ = slate.reports(0)
    assert report.verdict.error.arguments == ("red",)


def test_what_follows_an_end_is_plain_whatever_the_work_calls_it(app: Celery) -> None:
    class Follows(Task):
        def on_success(self, *_: Any) -> None:
            app.send_task("echo", kwargs={"input": Colour.RED}, priority=Urgency.HIGH, routing_key=Words("work_queue"))
            header = [app.signature("echo", kwargs={"input": Words("w")}, immutable=True) for _ in range(2)]
            chord(header, app.signature("echo")).apply_async(task_id=Words("body"), group_id=Words("begun"))

    @app.task(name="test.follows", shared=False, base=Follows)
    def follows() -> Any:
        return Words("done")

    report = read(run("test.follows", chord={"task": "echo", "options": {"task_id": "body"}, "chord_size": 2}))
    assert report.verdict == Completed('"done"')
    assert (report.drafts[0].priority, report.drafts[0].routing_key) == (5, "work_queue")
    assert report.chords
    assert report.chord_parts
