"""The scenarios by name, and a session that fails unless every one of them ran and passed.

A run of part of them, chosen by hand (a node id, ``-k``, ``--deselect``, ``--lf``, ``--sw``) or left out by ``-m``, is
not held to it.
"""

from __future__ import annotations

from pathlib import PurePath

import pytest

FILE = "test_e2e_message_bus.py"

SCENARIOS = (
    "test_orchestrator_to_agent_round_trip",
    "test_work_round_trip_with_parameters",
    "test_work_round_trip_with_priority",
    "test_multiple_agents_process_work",
    "test_correlation_ids_propagate",
    "test_malformed_message_nacked_to_dlx",
    "test_invalid_envelope_nacked_to_dlx",
    "test_agent_crash_leaves_message_in_queue",
    "test_agent_timeout_handled",
    "test_duplicate_request_id_returns_cached_result",
    "test_agent_offline_status_detected",
    "test_durable_queue_survives_restart",
    "test_priority_queue_ordering",
    "test_dead_letter_queue_captures_failures",
    "test_concurrent_dispatch_and_consume",
    "test_agent_registry_updates_concurrently",
    "test_result_listener_handles_concurrent_results",
    "test_request_cache_prevents_duplicate_execution",
    "test_idempotency_cache_expires",
    "test_queue_depth_query",
    "test_dlx_queue_inspection",
    "test_broker_outage_loses_no_dispatch",
    "test_native_celery_client_works",
    "test_flower_shows_the_work",
    "test_quickstart_is_true",
)


class Census:
    """Counts what ran and passed."""

    def __init__(self, config: pytest.Config) -> None:
        self._config = config
        self._counts = False
        self._passed: set[str] = set()

    @property
    def missing(self) -> list[str]:
        """The scenarios that should have run and passed, and have not."""
        return [name for name in SCENARIOS if name not in self._passed] if self._counts else []

    def pytest_collection_finish(self, session: pytest.Session) -> None:
        """Count, if scenarios are about to run and nobody has chosen among them."""
        about_to_run = any(item.path.name == FILE for item in session.items)
        self._counts = about_to_run and not self._config.option.collectonly and not _somebody_chose(self._config)

    def pytest_runtest_logreport(self, report: pytest.TestReport) -> None:
        """Note who passed."""
        file, _, name = report.nodeid.partition("::")
        if PurePath(file).name == FILE and report.when == "call" and report.passed and not hasattr(report, "wasxfail"):
            self._passed.add(name)

    @pytest.hookimpl(tryfirst=True)
    def pytest_sessionfinish(self, session: pytest.Session) -> None:
        """Fail the session if somebody is missing, whatever the others say."""
        if self.missing and session.exitstatus == pytest.ExitCode.OK:
            session.exitstatus = pytest.ExitCode.TESTS_FAILED

    def pytest_terminal_summary(self, terminalreporter: pytest.TerminalReporter) -> None:
        """Say who."""
        for name in self.missing:
            terminalreporter.write_line(f"MISSING {FILE}::{name}: it has to run and to pass", red=True)


def pytest_configure(config: pytest.Config) -> None:
    """Begin to count."""
    config.pluginmanager.register(Census(config), "scenario-census")


def _somebody_chose(config: pytest.Config) -> bool:
    chosen = ("keyword", "deselect", "lf", "stepwise")
    return any("::" in argument for argument in config.args) or any(config.getoption(name, None) for name in chosen)
