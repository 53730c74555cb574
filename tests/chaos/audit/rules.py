"""All the rules, applied."""

from __future__ import annotations

from collections.abc import Callable, Iterator

from tests.chaos.audit import allowance, canvas, ends, letters, runs, takeovers
from tests.chaos.audit.findings import Finding
from tests.chaos.evidence import Evidence

RULES: tuple[Callable[[Evidence], Iterator[Finding]], ...] = (
    ends.accepted_has_a_row,
    ends.sent_has_a_row,
    ends.every_row_has_ended,
    ends.nothing_is_left,
    ends.no_surprises,
    ends.nobody_ends_by_himself,
    ends.ends_fit,
    ends.cancelled_stays_cancelled,
    ends.steps_are_lawful,
    runs.runs_are_logged,
    runs.completed_has_run,
    runs.nothing_runs_after_its_end,
    runs.none_is_beside_another,
    runs.only_one_settles,
    runs.outcomes_are_explained,
    runs.one_task_a_request,
    allowance.runs_are_within_their_allowance,
    allowance.what_came_back_was_disturbed,
    takeovers.work_of_the_dead_is_taken_over_soon,
    canvas.lines_go_on_once,
    canvas.chords_have_all,
    letters.the_dead_have_letters,
    letters.letters_are_of_the_dead,
    letters.garbage_is_kept,
)


def audit(evidence: Evidence) -> list[Finding]:
    """Everything that must not be."""
    return [finding for rule in RULES for finding in rule(evidence)]
