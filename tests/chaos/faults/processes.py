"""Faults of processes: killed, stopped in their tracks, told to end, and there again."""

from __future__ import annotations

import random
import signal
import time

import psutil

from chiffon.devstack.guardian import lives
from tests.chaos.incidents import Note
from tests.chaos.plan import Fault
from tests.chaos.programs import Program
from tests.chaos.stand import Stand

_HURRY_AFTER = 0.5


def kill(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGKILL to the main process, as the kernel does it when memory ends; after a while it is started again."""
    program = stand.program(fault.target)
    family = _family(program)
    note.happened = bool(family)
    program.process.signal(signal.SIGKILL)
    time.sleep(fault.seconds)
    if left := [process for process in family if lives(process)]:
        note.said = f"left behind: {[process.pid for process in left]}"
        for process in left:
            process.kill()
    program.process.kill()
    program.launch()


def stop_and_go_on(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGSTOP to it and its children, and after a while SIGCONT."""
    program = stand.program(fault.target)
    note.happened = program.process.is_running()
    program.process.pause()
    time.sleep(fault.seconds)
    program.process.resume()


def restart(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGTERM, and a new one once it has ended in its own time: a deployment."""
    program = stand.program(fault.target)
    program.process.stop()
    note.said = f"code {program.process.exit_code}"
    time.sleep(fault.seconds)
    program.launch()


def hurry(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGTERM twice: what runs is given back at once."""
    program = stand.program(fault.target)
    program.process.ask_to_stop()
    time.sleep(_HURRY_AFTER)
    program.process.stop()
    note.said = f"code {program.process.exit_code}"
    time.sleep(fault.seconds)
    program.launch()


def kill_child(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGKILL to one process of an agent's pool."""
    program = stand.program(fault.target)
    children = _family(program)[1:]
    if not children:
        note.happened = False
        return
    victim = random.Random(fault.pick).choice(sorted(children, key=lambda child: child.pid))
    note.said = f"pid {victim.pid}"
    victim.kill()


def kill_broker(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGKILL to the broker."""
    stand.rabbitmq.kill()
    time.sleep(fault.seconds)
    stand.rabbitmq.start()


def restart_broker(stand: Stand, fault: Fault, note: Note) -> None:
    """The broker is stopped in order, and started again."""
    stand.rabbitmq.stop()
    time.sleep(fault.seconds)
    stand.rabbitmq.start()


def stop_broker(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGSTOP to the broker: connections stay open, and nothing answers."""
    stand.rabbitmq.pause()
    time.sleep(fault.seconds)
    stand.rabbitmq.resume()


def wipe_broker(stand: Stand, fault: Fault, note: Note) -> None:
    """The broker comes back without anything that it knew."""
    stand.rabbitmq.wipe()
    time.sleep(fault.seconds)
    stand.rabbitmq.start()


def alarm(stand: Stand, fault: Fault, note: Note) -> None:
    """The broker's memory or disk is full: it takes no more messages, and publishers hang."""
    stand.raise_alarm(fault.detail)
    time.sleep(fault.seconds)
    stand.clear_alarm(fault.detail)


def kill_postgres(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGKILL to Postgres and all its sessions."""
    stand.postgres.kill()
    time.sleep(fault.seconds)
    stand.postgres.start()


def restart_postgres(stand: Stand, fault: Fault, note: Note) -> None:
    """Postgres is stopped in order, and started again."""
    stand.postgres.stop()
    time.sleep(fault.seconds)
    stand.postgres.start()


def stop_postgres(stand: Stand, fault: Fault, note: Note) -> None:
    """SIGSTOP to Postgres: sessions stay open, and nothing answers."""
    stand.postgres.pause()
    time.sleep(fault.seconds)
    stand.postgres.resume()


def _family(program: Program) -> list[psutil.Process]:
    if not program.process.is_running():
        return []
    leader = psutil.Process(program.process.pid)
    return [leader, *leader.children(recursive=True)]
