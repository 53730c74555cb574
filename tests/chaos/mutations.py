"""The mutation check: each mechanism is taken out, one at a time, and the tests that hold it must turn red.

`make mutations`. It works on a copy of the tree. A mechanism that can go without a test's noticing is not proven.
"""

from __future__ import annotations

import argparse
import os
import re
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

REPOSITORY = Path(__file__).parents[2]
_LEFT_OUT = shutil.ignore_patterns(".*", "__pycache__", "*.egg-info", "build", "dist")
_PATIENCE = 300
_FAILED = 1
"""pytest's exit code when tests ran, and some failed."""


class NothingProven(Exception):
    """The tests could not be asked: what is red says nothing."""


@dataclass(frozen=True)
class Mutation:
    """``file`` without a mechanism: ``there`` replaced by ``instead``. ``tests``: each of them must turn red."""

    what: str
    file: str
    there: str
    instead: str
    tests: tuple[str, ...]


MUTATIONS = (
    Mutation(
        "the fencing guard",
        "chiffon/ledger/settle.py",
        "WHERE task_id = v.task_id AND execution = v.execution {ONE_BY_ONE}",
        "WHERE task_id = v.task_id {ONE_BY_ONE}",
        ("tests/integration/test_ledger_settle.py::test_an_old_execution_cannot_settle",),
    ),
    Mutation(
        "settle before acknowledge",
        "chiffon/agent/outcome.py",
        "        self.is_known = True\n        settlement, told",
        "        self.is_known = True\n        self._delivery.acknowledge()\n        settlement, told",
        (
            "tests/unit/test_agent_settles_first.py::test_a_message_is_kept_until_the_end_is_written_down",
            "tests/unit/test_agent_settles_first.py::test_a_failure_is_dead_lettered_after_its_end_is_written_down",
            "tests/e2e/test_guarantee_04_ledger_away.py"
            "::test_while_postgres_is_away_agents_finish_and_keep_what_runs_and_begin_nothing",
        ),
    ),
    Mutation(
        "the sweeper",
        "chiffon/dispatch/sweep.py",
        "full = self._sweep()",
        "full = False",
        (
            "tests/integration/test_sweeper.py::test_what_nobody_rang_for_is_rung_when_its_lease_is_over",
            "tests/integration/test_sweeper.py::test_scheduled_work_is_rung_when_it_is_due",
            "tests/integration/test_sweeper.py::test_the_work_of_an_agent_that_died_is_rung_for_others",
        ),
    ),
    Mutation(
        "the incarnation lock",
        "chiffon/ledger/agents.py",
        "    if not lock(cursor, incarnation):\n",
        "    if False:\n",
        ("tests/integration/test_ledger_takeover.py::test_a_living_agent_keeps_its_work_whoever_tries",),
    ),
    Mutation(
        "the crash counter",
        "chiffon/ledger/settle.py",
        "crashes = t.crashes + h.crashed::int",
        "crashes = t.crashes",
        ("tests/integration/test_ledger_settle.py::test_the_last_crash_that_is_allowed_is_the_end",),
    ),
    Mutation(
        "the publisher confirm",
        "chiffon/bus/confirms.py",
        "confirmed = frozenset(self._acked - self._returned)",
        "confirmed = frozenset(everything)",
        (
            "tests/unit/test_bus_confirms.py::test_a_closed_channel_confirms_nothing_more",
            "tests/integration/test_bus_publisher.py::test_what_a_full_queue_refuses_is_not_confirmed",
        ),
    ),
    Mutation(
        "the dead-letter debt",
        "chiffon/ledger/settle.py",
        "dead_letter_owed = h.status IN ('failed', 'dead_lettered') AND h.dead_letter",
        "dead_letter_owed = false",
        (
            "tests/integration/test_ledger_sweeps.py"
            "::test_a_dead_letter_is_owed_until_it_is_paid_after_its_holders_time_is_over",
            "tests/integration/test_sweeper.py::test_a_dead_letter_that_its_holder_did_not_pay_is_paid",
        ),
    ),
    Mutation(
        "the up-front validation",
        "chiffon/agent/consumer.py",
        "    def create_task_handler(self, *_: Any, **__: Any) -> Any:\n",
        "    def _nobodys_task_handler(self, *_: Any, **__: Any) -> Any:\n",
        (
            "tests/integration/test_traps_receiving.py"
            "::test_a_message_that_ends_every_stock_worker_it_meets_ends_no_agent",
        ),
    ),
)


@dataclass(frozen=True)
class Outcome:
    """What came of it. ``survived``: the tests that did not notice; ``trouble``: why nothing is proven."""

    mutation: Mutation
    survived: tuple[str, ...] = ()
    trouble: str = ""

    def __str__(self) -> str:
        """In a few lines: the mechanism, and each test with its colour."""
        said = [f"{self.mutation.what}: {self.trouble}" if self.trouble else self.mutation.what]
        if not self.trouble:
            said += [f"  {'GREEN' if test in self.survived else 'red  '}  {test}" for test in self.mutation.tests]
        return "\n".join(said)


def main() -> int:
    """Take out each, print the table, and say by the exit code whether every one was missed."""
    parser = argparse.ArgumentParser(prog="mutations", description=__doc__)
    parser.add_argument("words", nargs="*", help="only the mechanisms in whose names one of these stands")
    asked = parser.parse_args()
    chosen = [m for m in MUTATIONS if not asked.words or any(word in m.what for word in asked.words)]
    with tempfile.TemporaryDirectory(prefix="chiffon-mutations-") as folder:
        tree = Path(folder, "tree")
        shutil.copytree(REPOSITORY, tree, ignore=_LEFT_OUT)
        everything = tuple(test for mutation in chosen for test in mutation.tests)
        try:
            red = red_ones(tree, everything)
        except NothingProven as error:
            print(f"with everything in its place: {error}")
            return 1
        if red:
            print("these are red with everything in its place:", *red, sep="\n  ")
            return 1
        outcomes = []
        for mutation in chosen:
            outcomes.append(taken_out(tree, mutation))
            print(outcomes[-1], flush=True)
    return int(any(outcome.survived or outcome.trouble for outcome in outcomes))


def taken_out(tree: Path, mutation: Mutation) -> Outcome:
    """Take a mechanism out, see who notices, and put it back."""
    file = tree / mutation.file
    text = file.read_text()
    if text.count(mutation.there) != 1:
        return Outcome(mutation, trouble=f"{mutation.file} no longer has, once, {mutation.there!r}")
    file.write_text(text.replace(mutation.there, mutation.instead))
    try:
        red = red_ones(tree, mutation.tests)
    except NothingProven as error:
        return Outcome(mutation, trouble=str(error))
    finally:
        file.write_text(text)
    return Outcome(mutation, survived=tuple(test for test in mutation.tests if test not in red))


def red_ones(tree: Path, tests: Sequence[str]) -> list[str]:
    """Which of the tests fail in ``tree``. Raises NothingProven when one did not get as far as failing."""
    environment = {**os.environ, "CI": "true", "PYTHONDONTWRITEBYTECODE": "1", "COLUMNS": "1000"}
    try:
        done = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-rfE", "--no-header", "--tb=no", "-p", "no:cacheprovider", *tests],
            cwd=tree,
            env=environment,
            capture_output=True,
            text=True,
            timeout=_PATIENCE,
            check=False,
        )
    except subprocess.TimeoutExpired:
        raise NothingProven(f"the tests did not end within {_PATIENCE} s") from None
    if done.returncode not in {0, _FAILED}:
        raise NothingProven(f"pytest ended with {done.returncode}\n{done.stdout[-3000:]}{done.stderr[-3000:]}")
    told = done.stdout.splitlines()
    if broken := [line for line in told if line.startswith("ERROR ")]:
        raise NothingProven("\n  ".join(["what these need could not be set up, or not put away:", *broken]))
    failed = {re.split(r"[ \[]", line)[1] for line in told if line.startswith("FAILED ")}  # without their parameters
    return [test for test in tests if test in failed]


if __name__ == "__main__":
    sys.exit(main())
