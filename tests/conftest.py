"""Fixtures of the whole suite: hypothesis profiles and a home that is never the user's."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path

import pytest
from hypothesis import HealthCheck, settings

from tests import proofs
from tests.left_behind import allowed, stores_noted, wrong_in

# A shell starts background jobs with Ctrl-C ignored; tests of Ctrl-C and the commands they start must not inherit that.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

_PATIENT = [HealthCheck.too_slow, HealthCheck.function_scoped_fixture]
settings.register_profile("ci", max_examples=60, deadline=None, derandomize=True, suppress_health_check=_PATIENT)
settings.register_profile("soak", max_examples=3000, deadline=None, suppress_health_check=_PATIENT)
settings.load_profile(os.environ.get("ENGINE_TEST_PROFILE", "ci"))


def pytest_configure(config: pytest.Config) -> None:
    """Has the proofs counted."""
    config.pluginmanager.register(proofs, "proofs")


@pytest.fixture(scope="session")
def _homes_used() -> Iterator[dict[str, None]]:
    """The homes of all local stores that are made, emptied by each test."""
    homes: dict[str, None] = {}
    with stores_noted(homes):
        yield homes


@pytest.fixture(autouse=True)
def _nothing_damaged(request: pytest.FixtureRequest, _homes_used: dict[str, None]) -> Iterator[None]:
    """What a test leaves behind verifies, unless damage is its subject."""
    _homes_used.clear()
    yield
    wrong = wrong_in(_homes_used, allowed(request.node))
    if wrong:
        pytest.fail("the test left damage behind:\n" + "\n".join(wrong[:20]), pytrace=False)


@pytest.fixture(autouse=True)
def _temporary_home(
    tmp_path_factory: pytest.TempPathFactory,
    monkeypatch: pytest.MonkeyPatch,
    _nothing_damaged: None,
    _homes_used: dict[str, None],
) -> Path:
    """No test ever sees the user's home: `HOME` and `CODEX_HOME` point to fresh temporary folders."""
    home = tmp_path_factory.mktemp("home")
    codex_home = home / "codex"
    codex_home.mkdir()
    monkeypatch.setenv("HOME", str(home))
    monkeypatch.setenv("CODEX_HOME", str(codex_home))
    _homes_used[str(codex_home)] = None  # processes may use it, too
    for name in ("OPENAI_API_KEY", "CODEX_API_KEY", "OPENAI_BASE_URL", "CODEX_SQLITE_HOME"):
        monkeypatch.delenv(name, raising=False)
    return codex_home
