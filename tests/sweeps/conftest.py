"""Fixtures of the sweeps."""

from __future__ import annotations

import threading
from collections.abc import Iterator

import pytest

from tests.sweeps.leaks import OF_THE_ENGINE
from tests.sweeps.places import Stored, stored_threads

PATIENCE_S = 5.0


@pytest.fixture(scope="package", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files of ours, and of what we start, go to a folder of their own, so that none is overlooked."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr("tempfile.tempdir", folder)
        patch.setattr("tests.sweeps.leaks.TEMPORARY", [folder])
        yield


@pytest.fixture(autouse=True)
def _no_thread_is_left() -> Iterator[None]:
    """Threads of engines end with them: one that is left would fail a test that can do nothing for it."""
    yield
    for thread in threading.enumerate():
        if thread.name in OF_THE_ENGINE:
            thread.join(PATIENCE_S)
            assert not thread.is_alive(), f"{thread.name} has outlived its engine"


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_threads(tmp_path_factory.mktemp("stored"))
