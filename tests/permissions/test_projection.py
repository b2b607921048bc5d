"""The policy arithmetic, compiled and pure: by themselves, and equal on whatever is thrown at them."""

from __future__ import annotations

import gc
import inspect
import os
import random
import subprocess
import sys
import threading
import tracemalloc
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import engine.permissions._projection_py as pure
from engine.permissions.decision import Decision, Row
from engine.protocol.paths import normal_path
from engine.protocol.profiles import FileSystemEntry, FileSystemSandboxPolicy
from tests.permissions.conftest import TWINS
from tests.permissions.policies import accesses, cwds, entries, paths, policies, roots, texts

QUESTIONS = ("can_read", "can_write", "access", "forbidden_metadata", "explain")

ROWS: list[Row] = [
    ("/", "read", 0),
    ("/w", "write", 1),
    ("/w/docs", "read", 2),
    ("/w/docs/private", "none", 3),
    ("/w/docs/private/open", "write", 4),
    ("/w/.codex", "write", 5),
    ("/w", "read", 7),
]


def answers(policy: Any, path: str) -> list[object]:
    return [getattr(policy, question)(path) for question in QUESTIONS]


def test_who_is_who(arithmetic: ModuleType) -> None:
    assert arithmetic.__name__ == TWINS[arithmetic.IMPLEMENTATION]


@pytest.mark.parametrize(
    ("path", "decision"),
    [
        ("/", Decision("read", True, False, "entry", 0, None)),
        ("/w", Decision("write", True, True, "entry", 1, None)),
        ("src/a", Decision("write", True, True, "entry", 1, None)),
        ("~/x", Decision("write", True, True, "entry", 1, None)),
        ("/w2", Decision("read", True, False, "entry", 0, None)),
        ("docs/x", Decision("read", True, False, "entry", 2, None)),
        ("docs/private", Decision("none", False, False, "entry", 3, None)),
        ("docs/private/open/x", Decision("write", True, True, "entry", 4, None)),
        ("docs/../src", Decision("write", True, True, "entry", 1, None)),
        ("/w//docs/./private/../../x/", Decision("write", True, True, "entry", 1, None)),
        ("/../../w/x", Decision("write", True, True, "entry", 1, None)),
        (".git", Decision("write", True, False, "metadata", 1, ".git")),
        (".git/hooks/x", Decision("write", True, False, "metadata", 1, ".git")),
        ("sub/.git/x", Decision("write", True, True, "entry", 1, None)),
        (".codex/x", Decision("write", True, True, "entry", 5, None)),
        # Only the first writable root counts, and what it protects is reopened as a whole.
        (".codex/.git", Decision("write", True, True, "entry", 5, None)),
        ("docs/private/open/.agents", Decision("write", True, False, "metadata", 4, ".agents")),
        ("", Decision("write", True, True, "entry", 1, None)),
    ],
)
def test_decisions(arithmetic: ModuleType, path: str, decision: Decision) -> None:
    policy = arithmetic.CompiledPolicy(ROWS, cwd="/w", home="/w/home")
    assert policy.explain(path) == decision
    assert answers(policy, path) == [
        decision.can_read,
        decision.can_write,
        decision.access,
        decision.forbidden_metadata,
        decision,
    ]
    assert policy.explain(path) is policy.explain(path)


def test_nothing_said_is_nothing_allowed(arithmetic: ModuleType) -> None:
    policy = arithmetic.CompiledPolicy((), cwd="/")
    assert answers(policy, "/x") == [False, False, "none", None, Decision("none", False, False, "no_entry", None, None)]
    # Without a home directory the tilde is a name.
    named = arithmetic.CompiledPolicy([("/~", "read", 0)], cwd="/")
    assert named.can_read("~/x")


def test_open_and_full_policies(arithmetic: ModuleType) -> None:
    policy = arithmetic.CompiledPolicy((), cwd="/", open=True)
    assert answers(policy, "/x/.git") == [True, True, "write", None, Decision("write", True, True, "open", None, None)]
    policy = arithmetic.CompiledPolicy([("/", "write", 0)], cwd="/", full_write=True)
    assert answers(policy, "/.git")[:4] == [True, True, "write", None]


def test_only_text_is_a_path(arithmetic: ModuleType) -> None:
    policy = arithmetic.CompiledPolicy(ROWS, cwd="/w", home="/w/home")
    for question in QUESTIONS:
        for wrong in (b"/w", None, 1):
            with pytest.raises(TypeError, match=f"path: expected str, got {type(wrong).__name__}"):
                getattr(policy, question)(wrong)
    for arguments in ({"rows": [(b"/w", "read", 0)]}, {"cwd": b"/"}, {"home": 1}):
        with pytest.raises(TypeError, match="path: expected str"):
            arithmetic.CompiledPolicy(**{"rows": (), "cwd": "/", **arguments})
    with pytest.raises(KeyError):
        arithmetic.CompiledPolicy([("/w", "append", 0)], cwd="/")
    with pytest.raises(TypeError):
        arithmetic.CompiledPolicy(())

    class Text(str):
        """A path of a subclass."""

    assert policy.can_write(Text("/w/x"))


def test_queries_need_no_memory() -> None:
    policy = pytest.importorskip(TWINS["c"]).CompiledPolicy(ROWS, cwd="/w", home="/w/home")
    asked = ["/w/docs/private/open/x/y", "docs//../é/.git", "~/x/日本", "/nowhere/at/all" * 50]
    for path in asked:
        answers(policy, path)
    gc.collect()
    tracemalloc.start()
    try:
        before = tracemalloc.get_traced_memory()[0]
        tracemalloc.reset_peak()
        for path in asked:
            policy.can_read(path)
            policy.can_write(path)
            policy.access(path)
            policy.forbidden_metadata(path)
            policy.explain(path)
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    # The loop over the list takes its own iterator.
    assert peak - before < 200


def test_many_threads_may_ask_at_once(arithmetic: ModuleType) -> None:
    policy = arithmetic.CompiledPolicy(ROWS, cwd="/w")
    expected = answers(policy, "docs/private/open/x")
    found: list[bool] = []

    def ask() -> None:
        found.append(all(answers(policy, "docs/private/open/x") == expected for _ in range(200)))

    threads = [threading.Thread(target=ask) for _ in range(4)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert found == [True] * 4


@pytest.mark.parametrize("forced", ["", "1"])
def test_the_environment_chooses_the_twin(forced: str) -> None:
    code = (
        "from engine import accel; from engine.permissions import projection;"
        "print(projection.IMPLEMENTATION, accel.implementation())"
    )
    done = subprocess.run(
        [sys.executable, "-c", code],
        capture_output=True,
        text=True,
        check=True,
        env={**os.environ, "ENGINE_PURE_PYTHON": forced},
    )
    one, other = done.stdout.split()
    assert one == other
    assert one == "python" or not forced


def test_both_have_the_same_surface() -> None:
    compiled = pytest.importorskip(TWINS["c"])
    for name in ("CompiledPolicy", "materialize", "merge_entries", "legacy_scan", "IMPLEMENTATION"):
        assert hasattr(compiled, name)
    methods = [name for name, _ in inspect.getmembers(pure.CompiledPolicy, callable) if not name.startswith("_")]
    assert [name for name, _ in inspect.getmembers(compiled.CompiledPolicy, callable) if name[0] != "_"] == methods


# --- equal, whatever comes ---------------------------------------------------------------------

rows = st.lists(st.tuples(paths, accesses, st.integers(0, 99)), max_size=10)


@given(
    rows,
    cwds,
    st.none() | cwds,
    st.booleans(),
    st.booleans(),
    st.lists(st.one_of(texts, texts.map("/{}".format)), min_size=1, max_size=20),
)
def test_compiled_policies_answer_alike(
    entries: list[Row], cwd: str, home: str | None, open: bool, full_write: bool, asked: list[str]
) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    one, other = (
        module.CompiledPolicy(entries, cwd=cwd, home=home, open=open, full_write=full_write)
        for module in (compiled, pure)
    )
    for path in (*asked, *(row[0] for row in entries), *(f"{row[0]}/.git/x" for row in entries)):
        assert answers(one, path) == answers(other, path), path


@given(rows, cwds, st.dictionaries(paths, paths, max_size=6), st.lists(paths, max_size=3))
def test_root_lists_are_alike(entries: list[Row], cwd: str, aliases: dict[str, str], kept: list[str]) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    one, other = (module.CompiledPolicy(entries, cwd=cwd) for module in (compiled, pure))

    def effective(path: str) -> str:
        return aliases.get(path, path)

    def protected(root: str) -> Sequence[str]:
        return [normal_path(f"{root}{path}") for path in kept]

    assert one.readable_roots(effective) == other.readable_roots(effective)
    assert one.unreadable_roots(effective) == other.unreadable_roots(effective)
    assert one.writable_roots(effective, protected) == other.writable_roots(effective, protected)


@given(policies, roots)
def test_materialising_is_alike(policy: FileSystemSandboxPolicy, places: tuple[str, ...]) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    made = compiled.materialize(policy.entries, places)
    assert made == pure.materialize(policy.entries, places)
    assert type(made) is tuple


@given(st.lists(entries, max_size=8), st.lists(entries, max_size=8), st.booleans())
def test_merging_is_alike(some: list[FileSystemEntry], more: list[FileSystemEntry], denied_only: bool) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    made = compiled.merge_entries(some, more, denied_only=denied_only)
    assert made == pure.merge_entries(some, more, denied_only=denied_only)
    added = [entry for entry in more if entry.access == "none" or not denied_only]
    assert made == (*some, *dict.fromkeys(entry for entry in added if entry not in some))


@given(st.lists(entries, max_size=10), cwds)
def test_legacy_scans_are_alike(some: list[FileSystemEntry], cwd: str) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    assert compiled.legacy_scan(some, cwd) == pure.legacy_scan(some, cwd)


def _deep(chance: random.Random) -> str:
    return "/" + "/".join(
        chance.choice(("a", "b", ".git", "é", "日本", "😀" * 3)) for _ in range(chance.randint(1, 300))
    )


def _wide(chance: random.Random) -> str:
    return f"/{chance.randint(0, 400)}/{chance.randint(0, 400)}/{chance.choice(('x', '.git', '.codex'))}"


@pytest.mark.parametrize(("make", "count"), [(_deep, 400), (_wide, 20_000)])
def test_very_many_and_very_deep_entries(make: Callable[[random.Random], str], count: int) -> None:
    compiled = pytest.importorskip(TWINS["c"])
    chance = random.Random(7)
    modes: list[Any] = ["read", "write", "none"]
    many: list[Row] = [(make(chance), chance.choice(modes), at) for at in range(count)]
    one, other = (module.CompiledPolicy(many, cwd=many[0][0], home=many[1][0]) for module in (compiled, pure))
    for _ in range(2000):
        path = make(chance)
        cut = path[: chance.randint(0, len(path))]
        for asked in (path, cut, f"{path}/../../..{cut}", cut.lstrip("/"), f"~{cut}"):
            assert answers(one, asked) == answers(other, asked), asked


def test_names_that_differ_by_little_are_told_apart(arithmetic: ModuleType) -> None:
    lists: list[Row] = [("/\u00e9", "read", 0), ("/e\u0301", "write", 1), ("/\ud800", "none", 2), ("/a\0b", "read", 3)]
    policy = arithmetic.CompiledPolicy(lists, cwd="/")
    assert [policy.access(path) for path in ("/\u00e9/x", "/e\u0301/x", "/\ud800/x", "/a\0b", "/a", "/a\0c")] == [
        "read",
        "write",
        "none",
        "read",
        "none",
        "none",
    ]
