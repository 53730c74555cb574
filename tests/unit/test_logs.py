"""Logs name the task they are about, in one form, and tell no secret."""

from __future__ import annotations

import io
import json
import logging
import threading
import time
from collections.abc import Iterator
from typing import Any

import pytest
import structlog
from celery.app.trace import LOG_RECEIVED, LOG_SUCCESS, info

from chiffon.config import Settings
from chiffon.logs import Scrubber, about, configure, redacted_repr

SETTINGS = Settings()


class Log(io.StringIO):
    """What was logged."""

    @property
    def lines(self) -> list[dict[str, Any]]:
        return [json.loads(line) for line in self.getvalue().splitlines()]

    @property
    def line(self) -> dict[str, Any]:
        (only,) = self.lines
        return only


@pytest.fixture
def log() -> Iterator[Log]:
    """A log that this process writes to for the length of a test."""
    root = logging.getLogger()
    handlers, level = root.handlers[:], root.level
    stream = Log()
    configure(SETTINGS, stream=stream)
    yield stream
    root.handlers[:] = handlers
    root.setLevel(level)
    structlog.reset_defaults()


def celery_line(task_id: str, **parameters: object) -> dict[str, object]:
    return {"id": task_id, "name": "echo", "args": "()", "kwargs": repr(parameters), "eta": None}


def test_structlog_and_the_standard_library_write_the_same_form(log: Log) -> None:
    structlog.get_logger("one").warning("something", number=1)
    logging.getLogger("two").warning("something %s", "else", extra={"number": 2})

    first, second = log.lines
    assert (first["event"], first["logger"], first["level"], first["number"]) == ("something", "one", "warning", 1)
    assert (second["event"], second["logger"], second["level"], second["number"]) == (
        "something else", "two", "warning", 2
    )  # fmt: skip
    assert first["timestamp"].endswith("Z")
    assert second["timestamp"].endswith("Z")


def test_every_line_about_a_task_names_it(log: Log) -> None:
    with about(task_id="t-1", request_id="r-1", trace_id="f" * 32):
        structlog.get_logger().info("one")
        logging.getLogger("any.library").info("two")
    structlog.get_logger().info("three")

    ids = {"task_id": "t-1", "request_id": "r-1", "trace_id": "f" * 32}
    assert ids.items() <= log.lines[0].items()
    assert ids.items() <= log.lines[1].items()
    assert not ids.keys() & log.lines[2].keys()


def test_tasks_may_be_about_each_other(log: Log) -> None:
    with about(task_id="outer", trace_id="a" * 32):
        with about(task_id="inner"):
            structlog.get_logger().info("one")
        structlog.get_logger().info("two")

    assert [(line["task_id"], line["trace_id"]) for line in log.lines] == [("inner", "a" * 32), ("outer", "a" * 32)]


def test_another_threads_task_is_not_this_ones(log: Log) -> None:
    with about(task_id="mine"):
        other = threading.Thread(target=structlog.get_logger().info, args=("from elsewhere",))
        other.start()
        other.join()

    assert "task_id" not in log.line


def test_celerys_own_lines_name_the_task(log: Log) -> None:
    info(LOG_RECEIVED, celery_line("t-1"))

    assert log.line["task_id"] == "t-1"
    assert log.line["work_type"] == "echo"
    assert "data" not in log.line


def test_an_extra_called_data_that_is_not_celerys_is_kept(log: Log) -> None:
    logging.getLogger("two").warning("look", extra={"data": [1, 2]})

    assert log.line["data"] == [1, 2]


def test_secret_parameters_are_hidden_at_any_depth(log: Log) -> None:
    structlog.get_logger().info(
        "x", parameters={"user": "ann", "deep": [{"DB_Password": "hunter2"}]}, api_key="hunter2"
    )

    assert log.line["parameters"] == {"user": "ann", "deep": [{"DB_Password": "[redacted]"}]}
    assert log.line["api_key"] == "[redacted]"


def test_secret_parameters_are_hidden_in_celerys_sentences(log: Log) -> None:
    logging.getLogger().setLevel(logging.DEBUG)
    said = celery_line("t-1") | {"runtime": 1, "return_value": repr({"token": "hunter2", "n": 3})}
    info(LOG_SUCCESS, said)
    logging.getLogger("celery.pool").debug("Apply %s (kwargs:%r)", "f", {"password": "hunter2", "n": 3})
    logging.getLogger("celery.pool").debug("body %r", b'[[], {"password": "hunter2", "n": 3}, {}]')

    assert "hunter2" not in log.getvalue()
    assert all("3" in line["event"] for line in log.lines)


@pytest.mark.parametrize(
    "text",
    [
        "password=hunter2",
        "password: hunter2 or not",
        "{'password': 'hunter2'}",
        "{'my_password_old': 'a \\' hunter2'}",
        '{"password": "hunter2"}',
        '{\\"password\\": \\"hunter2\\"}',
        "{'password': 'cut off before hunter2...",
        "{'credentials': {'user': 'ann', 'pin': 'hunter2'}}",
        "{'tokens': ['hunter1', 'hunter2']}",
        "Authorization: Bearer hunter2",
        "X-Api-Key: hunter2",
        "GET /x?token=hunter2&y=1",
        "User(name='ann', password='hunter2')",
        "amqp://ann:hunter2@host//",
        "postgresql+psycopg2://ann:hunter2@host/db",
        "amqp://ann:slash/hunter2@host//",
        "postgresql://ann:p@hunter2@host/db",
        "amqp://:hunter2@host//",
        "http://ann:hunter2@host:80/path",
        "amqp://a:hunter2@one//;amqp://b:hunter2@two//",
    ],
)
def test_a_secret_in_a_text_is_hidden(text: str) -> None:
    shown = Scrubber(SETTINGS.secret_parameters).text(text)

    assert "hunter2" not in shown
    assert "[redacted]" in shown


@pytest.mark.parametrize(
    "text",
    [
        "amqp://127.0.0.1:5672//",
        "postgresql://ann@host:5432/db",
        "http://host:8080/path?mail=a@b.c",
        "the task ended: nothing to hide",
        "2026-01-01T10:00:00Z celery@host ready",
    ],
)
def test_other_texts_stay_as_they_are(text: str) -> None:
    assert Scrubber(SETTINGS.secret_parameters).text(text) == text


def test_a_long_text_is_scrubbed_in_no_time() -> None:
    scrubber = Scrubber(SETTINGS.secret_parameters)
    began = time.process_time()
    for piece in ("a", "a.", "://", "token", "'", "://:", "password=", "amqp://a:"):
        assert scrubber.text(piece * (200_000 // len(piece)))
    assert time.process_time() - began < 5


def test_the_password_of_a_url_is_hidden_in_a_traceback(log: Log) -> None:
    try:
        raise ConnectionError("cannot reach amqp://guest:hunter2@localhost//")
    except ConnectionError:
        structlog.get_logger().exception("gone", url="postgresql://ann:hunter2@host/db")
        logging.getLogger("two").exception("gone")

    assert "hunter2" not in log.getvalue()
    assert all("ConnectionError: cannot reach amqp://guest:[redacted]@" in line["exception"] for line in log.lines)


def test_whatever_is_logged_is_a_line_of_json(log: Log) -> None:
    class Odd:
        def __repr__(self) -> str:
            return "Odd(password='hunter2')"

    structlog.get_logger().info("a\nb", odd=Odd(), raw=b"\xff", nan=float("nan"), some={1}, at={(1, 2): "\ud800"})

    assert log.line["odd"] == "Odd(password=[redacted])"
    assert log.line["nan"] == "nan"
    assert log.line["some"] == [1]


def test_lines_below_the_level_are_not_written(log: Log) -> None:
    structlog.get_logger().debug("too quiet")
    configure(SETTINGS, level="ERROR", stream=log)
    structlog.get_logger().warning("too quiet")
    logging.getLogger("celery").warning("too quiet")
    structlog.get_logger().error("loud")

    assert log.line["event"] == "loud"


def test_the_console_form_is_for_people(log: Log) -> None:
    configure(Settings(log_format="console"), stream=log)
    with about(task_id="t-1"):
        structlog.get_logger().info("ready", password="hunter2")

    assert "task_id=t-1" in log.getvalue()
    assert "hunter2" not in log.getvalue()
    assert not log.getvalue().startswith("{")


def test_what_flower_shows_is_redacted_and_short() -> None:
    assert redacted_repr({"user": "ann", "token": "hunter2"}, SETTINGS) == "{'user': 'ann', 'token': '[redacted]'}"
    assert redacted_repr(["amqp://a:hunter2@b//"], SETTINGS) == "['amqp://a:[redacted]@b//']"
    assert redacted_repr("x" * 5000, SETTINGS, limit=10) == "'xxxxxx..."
