"""Tests of the summary of proofs, on a suite of its own."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

SUITE = """
import pytest
from hypothesis import given, settings, strategies as st
from tests.proofs import tried

@pytest.mark.parametrize("number", [1, 2])
def test_kills(number):
    tried(kills=number, not_reached=1)
    tried(kills=1000)

def test_that_fails_has_tried_something():
    tried(kills=5)
    assert False

@settings(max_examples=30)
@given(st.integers())
def test_a_property(number):
    assert number == number

def test_nothing():
    pass
"""


@pytest.mark.parametrize("more", [[], ["-n", "2"]], ids=["alone", "in two processes"])
def test_the_lines(tmp_path: Path, more: list[str]) -> None:
    (tmp_path / "test_it.py").write_text(SUITE)
    (tmp_path / "conftest.py").write_text("from tests.proofs import *\n")
    done = subprocess.run(
        [sys.executable, "-m", "pytest", f"--rootdir={tmp_path}", "-c", "/dev/null", str(tmp_path), *more],
        cwd=Path(__file__).parents[1],
        stdout=subprocess.PIPE,
        text=True,
        check=False,
    )
    lines = [line.rpartition(";")[0] for line in done.stdout.splitlines()]
    assert "test_it: 2,008 kills, 2 not reached" in lines, done.stdout
    assert "properties of test_it: 1 properties, 30 examples" in lines, done.stdout
    assert sum("kills" in line and "reached" in line for line in lines) == 1
