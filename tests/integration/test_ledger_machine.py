"""The ledger against a model of it: whatever happens in whatever order, both say the same."""

from __future__ import annotations

import os

import pytest
from hypothesis import HealthCheck, settings
from hypothesis.stateful import run_state_machine_as_test

from tests.bench import Bench
from tests.doubt import Doubt
from tests.ledger_machine import LedgerMachine

EXAMPLES = int(os.environ.get("CHIFFON_TEST_EXAMPLES") or 30)


@pytest.mark.timeout(280)
def test_whatever_happens_the_ledger_says_what_the_protocol_says(bench: Bench, doubt: Doubt) -> None:
    chosen = settings(
        max_examples=EXAMPLES,
        stateful_step_count=60,
        deadline=None,
        suppress_health_check=list(HealthCheck),
        print_blob=True,
    )
    run_state_machine_as_test(lambda: LedgerMachine(bench, doubt), settings=chosen)
