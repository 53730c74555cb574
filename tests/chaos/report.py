"""The report: figures under names that do not change, for people and for `chaos-report.json`."""

from __future__ import annotations

import json
import statistics
from collections import Counter
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from tests.chaos.audit.findings import Finding
from tests.chaos.audit.takeovers import PROBE, takeovers
from tests.chaos.evidence import Evidence
from tests.chaos.incidents import OF_THE_RUN, Incident
from tests.chaos.plan import Plan

_SHOWN = 40


@dataclass(frozen=True)
class Report:
    """What came of a run."""

    figures: dict[str, Any]
    findings: list[Finding]

    @property
    def is_green(self) -> bool:
        """Whether the product kept its word."""
        return not self.findings

    def write(self, path: Path) -> None:
        """Write the figures and what was found as JSON."""
        found = [vars(finding) for finding in self.findings]
        path.write_text(json.dumps({**self.figures, "findings": found}, indent=2) + "\n")

    def show(self) -> str:
        """The figures for a terminal."""
        figures = self.figures
        faults = ", ".join(f"{kind} {many}" for kind, many in figures["faults"].items())
        unmet = ", ".join(f"{kind} {many}" for kind, many in figures["faults_that_met_nobody"].items())
        recovery, takeover = figures["recovery_seconds"], figures["takeover_seconds"]
        lines = [
            f"seed      {figures['seed']}",
            f"accepted  {figures['accepted']} of {figures['orders']} ({figures['tasks']} tasks in the ledger)",
            f"lost      {figures['lost']}",
            f"doubled   {figures['doubled']}",
            f"stuck     {figures['stuck']}",
            f"wrong     {figures['wrong']}",
            f"ends      {', '.join(f'{name} {many}' for name, many in figures['ends'].items())}",
            f"runs      {figures['runs']}; executions {figures['executions']}",
            f"faults    {sum(figures['faults'].values())}: {faults}",
            f"met none  {unmet or 'of them'}",
            f"recovery  p50 {recovery['p50']} s, max {recovery['max']} s",
            f"takeover  p50 {takeover['p50']} s, max {takeover['max']} s, of {takeover['of']}",
            f"rest      after {figures['rest_seconds']} s",
        ]
        lines += [f"  {f.fault}: {f.about}: {f.says}" for f in self.findings[:_SHOWN]]
        if len(self.findings) > _SHOWN:
            lines.append(f"  ... and {len(self.findings) - _SHOWN} more")
        return "\n".join(lines)


def make_report(plan: Plan, evidence: Evidence, findings: list[Finding], rest_seconds: float) -> Report:
    """The figures of a run."""
    counted = {fault: len({f.about for f in findings if f.fault == fault}) for fault in _COUNTED}
    beats = [seconds for _, seconds in evidence.pulses if seconds is not None]
    figures = {
        "seed": plan.seed,
        "accepted": len(evidence.promises.ids()),
        **counted,
        "faults": _by_kind(evidence, happened=True),
        "faults_that_met_nobody": _by_kind(evidence, happened=False),
        "recovery_seconds": _spread(beats),
        "takeover_seconds": {**_spread(taken := list(takeovers(evidence))), "of": len(taken)},
        "rest_seconds": round(rest_seconds, 1),
        "minutes": plan.seconds / 60,
        "orders": len(plan.orders),
        "tasks": len(evidence.tasks),
        "ends": dict(sorted(Counter(task.status for task in evidence.tasks.values()).items())),
        "executions": dict(
            sorted(Counter(str(e.outcome) for of_task in evidence.executions.values() for e in of_task).items())
        ),
        "runs": sum(map(len, evidence.runs.values())),
        "letters": len(evidence.letters.tasks) + len(evidence.letters.garbage),
        "exits": sum(incident.kind == "exit" for incident in evidence.incidents),
    }
    return Report(figures, findings)


_COUNTED = ("lost", "doubled", "stuck", "wrong")


def _by_kind(evidence: Evidence, *, happened: bool) -> dict[str, int]:
    planned = (i for i in evidence.incidents if i.kind not in OF_THE_RUN and PROBE not in i.detail)
    found = [i for i in planned if i.happened == happened]
    kinds = Counter(_kind(incident) for incident in found)
    return dict(sorted(kinds.items()))


def _kind(incident: Incident) -> str:
    """Its kind; with its detail where that says what it was."""
    if incident.kind in {"broker_alarm", "swallow_commit"}:
        return f"{incident.kind} {incident.detail.split()[0]}"
    return incident.kind


def _spread(seconds: Sequence[float]) -> dict[str, float | None]:
    if not seconds:
        return {"p50": None, "max": None}
    return {"p50": round(statistics.median(seconds), 2), "max": round(max(seconds), 2)}
