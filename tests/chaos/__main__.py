"""Try to break Chiffon: `python -m tests.chaos --seed 7 --tasks 400 --minutes 3 --faults 25`."""

from __future__ import annotations

import argparse
import secrets
import shutil
import sys
import tempfile
from pathlib import Path

from tests.chaos.machine import Machine
from tests.chaos.plan import KINDS, make_plan
from tests.chaos.stand import in_repository
from tests.chaos.timeline import save

REPORT = Path("chaos-report.json")


def main() -> int:
    """Run, report, and say by the exit code whether the product kept its word."""
    asked = _arguments()
    seed = asked.seed if asked.seed is not None else secrets.randbelow(1_000_000)
    kinds = tuple(asked.kinds.split(",")) if asked.kinds else ()
    plan = make_plan(seed, tasks=asked.tasks, minutes=asked.minutes, faults=asked.faults, kinds=kinds)
    _say(f"seed {seed}: {asked.tasks} tasks, {asked.faults} faults, {asked.minutes:g} minutes")
    if asked.plan:
        print(*plan.faults, sep="\n")
        return 0
    in_repository()
    folder = Path(tempfile.mkdtemp(prefix="chiffon-chaos-"))
    machine = Machine(plan, folder, asked.queue_type, _say)
    report = machine.run()
    report.write(asked.report)
    print(report.show())
    if report.is_green and not asked.keep:
        shutil.rmtree(folder, ignore_errors=True)
    else:
        save(machine.evidence, folder)
        _say(f"logs and evidence are in {folder}; seed {seed} repeats it")
    return 0 if report.is_green else 1


def _arguments() -> argparse.Namespace:
    parser = argparse.ArgumentParser(prog="chaos", description=__doc__)
    parser.add_argument("--seed", type=int, help="a fresh one by default")
    parser.add_argument("--tasks", type=int, default=400)
    parser.add_argument("--minutes", type=float, default=3)
    parser.add_argument("--faults", type=int, default=25)
    parser.add_argument("--kinds", default="", help=f"limit the faults to some of {','.join(k.name for k in KINDS)}")
    parser.add_argument("--queue-type", choices=("classic", "quorum"), default="classic")
    parser.add_argument("--plan", action="store_true", help="show what the seed says, and do nothing")
    parser.add_argument("--keep", action="store_true", help="keep logs and evidence of a green run too")
    parser.add_argument("--report", type=Path, default=REPORT)
    return parser.parse_args()


def _say(line: str) -> None:
    print(line, flush=True)


if __name__ == "__main__":
    sys.exit(main())
