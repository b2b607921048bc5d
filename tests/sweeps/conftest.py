"""Fixtures of the sweeps."""

from __future__ import annotations

import pytest

from tests.sweeps.places import Stored, stored_threads


@pytest.fixture(scope="package")
def stored(tmp_path_factory: pytest.TempPathFactory) -> Stored:
    return stored_threads(tmp_path_factory.mktemp("stored"))
