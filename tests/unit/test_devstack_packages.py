"""How a missing server gets installed, and what a user is told who may not."""

from __future__ import annotations

import pytest

from chiffon.devstack.errors import NotAllowed
from chiffon.devstack.packages import Machine, Program, command_for

BOTH = [Program.RABBITMQ, Program.POSTGRES]


def machine(
    *, is_root: bool = False, has_apt: bool = False, has_brew: bool = False, has_free_sudo: bool = False
) -> Machine:
    return Machine(is_root=is_root, has_apt=has_apt, has_brew=has_brew, has_free_sudo=has_free_sudo)


def test_root_installs_with_apt() -> None:
    command = command_for(BOTH, machine(is_root=True, has_apt=True))
    assert command[0] == "sh"
    assert command[-2:] == ["rabbitmq-server", "postgresql"]


def test_a_user_with_sudo_that_asks_nothing_installs_with_apt() -> None:
    command = command_for([Program.POSTGRES], machine(has_apt=True, has_free_sudo=True))
    assert command[:2] == ["sudo", "-n"]
    assert command[-1] == "postgresql"


def test_on_a_mac_homebrew_installs() -> None:
    assert command_for([Program.RABBITMQ], machine(has_brew=True)) == ["brew", "install", "rabbitmq"]


def test_a_user_who_may_not_is_given_the_exact_command() -> None:
    with pytest.raises(NotAllowed, match="sudo apt-get install -y rabbitmq-server postgresql\n"):
        command_for(BOTH, machine(has_apt=True))


def test_root_on_a_mac_is_sent_to_an_ordinary_user() -> None:
    with pytest.raises(NotAllowed, match="brew install postgresql@17\n"):
        command_for([Program.POSTGRES], machine(is_root=True, has_brew=True))


def test_without_a_package_manager_running_servers_can_be_named() -> None:
    with pytest.raises(NotAllowed, match="CHIFFON_BROKER_URL and CHIFFON_DATABASE_URL"):
        command_for(BOTH, machine(is_root=True))


def test_apt_is_kept_from_starting_a_server_of_its_own() -> None:
    script = command_for(BOTH, machine(is_root=True, has_apt=True))[2]
    assert "policy-rc.d" in script
    assert "exit 101" in script
