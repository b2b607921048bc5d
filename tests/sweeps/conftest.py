"""Fixtures of the sweeps."""

from __future__ import annotations

import pytest

from tests.sweeps.places import Stored, stored_threads
from tests.sweeps.sweeping import CHECKED, summary


def pytest_terminal_summary(terminalreporter: pytest.TerminalReporter) -> None:
    """What the sweeps of this run have tried."""
    if CHECKED:
        terminalreporter.write_line(summary(CHECKED))


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_threads(tmp_path_factory.mktemp("stored"))
