"""A health check ends, and blames an agent for nothing that is its broker's."""

from __future__ import annotations

import subprocess
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from chiffon.devstack.rabbitmq import PrivateRabbitMQ
from tests.e2e.agents import Agents
from tests.e2e.nodes import BrokerNode
from tests.e2e.stack import REPOSITORY, StackUnderTest

pytest_plugins = ("tests.e2e.fixtures",)

PATIENCE = 60
"""Seconds, far more than a check may take."""


@pytest.fixture
def alarm(rabbitmq: PrivateRabbitMQ, mortal_broker: BrokerNode) -> Iterator[PrivateRabbitMQ]:
    """The broker, whose alarm is over after the test."""
    yield rabbitmq
    rabbitmq.ctl("set_vm_memory_high_watermark", "0.4")


def check(stack: StackUnderTest, agent_id: str) -> tuple[int, str]:
    """Ask as a supervisor does; its exit code and what it said."""
    asked = subprocess.run(
        [Path(sys.executable).with_name("chiffon"), "health", "agent", agent_id],
        env={"PATH": "", "PYTHONPATH": str(REPOSITORY), **stack.settings()},
        cwd=REPOSITORY,
        capture_output=True,
        text=True,
        check=False,
        timeout=PATIENCE,
    )
    return asked.returncode, asked.stdout


def test_under_an_alarm_of_the_broker_nothing_is_said_of_the_agent(
    alarm: PrivateRabbitMQ, stack: StackUnderTest, agents: Agents
) -> None:
    agent = agents.start()
    assert check(stack, agent.agent_id)[0] == 0
    alarm.ctl("set_vm_memory_high_watermark", "0.0000001")
    began = time.monotonic()
    code, said = check(stack, agent.agent_id)
    assert (code, "a memory or disk alarm" in said) == (0, True), said
    assert time.monotonic() - began < PATIENCE / 2
    alarm.ctl("set_vm_memory_high_watermark", "0.4")
    assert "answers over the broker" in check(stack, agent.agent_id)[1]


def test_a_broker_that_hangs_keeps_no_check_waiting(
    alarm: PrivateRabbitMQ, stack: StackUnderTest, agents: Agents
) -> None:
    agent = agents.start()
    alarm.pause()
    code, said = check(stack, agent.agent_id)
    assert (code, "RabbitMQ" in said) == (0, True), said
    alarm.resume()
    assert "answers over the broker" in check(stack, agent.agent_id)[1]
