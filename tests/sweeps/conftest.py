"""Fixtures of the sweeps."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.sweeps.places import Stored, stored_threads


@pytest.fixture(scope="package", autouse=True)
def _temporary_files(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """Temporary files of ours, and of what we start, go to a folder of their own, so that none is overlooked."""
    folder = str(tmp_path_factory.mktemp("temporary"))
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("TMPDIR", folder)
        patch.setattr("tempfile.tempdir", folder)
        patch.setattr("tests.sweeps.leaks.TEMPORARY", [folder])
        yield


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_threads(tmp_path_factory.mktemp("stored"))
