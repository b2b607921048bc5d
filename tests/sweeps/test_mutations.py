"""The sweeps find what they are there for: classic mistakes in starts and turns are caught (CONCURRENCY 1.1, 1.2)."""

from __future__ import annotations

import ast
import gc
import inspect
import textwrap
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import cast

import pytest

from engine.session import startup
from engine.session.core import SessionCore
from engine.session.turn import Fence, TurnRun
from tests.sweeps.places import KINDS, Kind, Stored
from tests.sweeps.sweeping import sweep
from tests.sweeps.test_start_sweep import cancelled
from tests.sweeps.test_turn_sweep import interrupted, run_cancelled

Change = Callable[[ast.AsyncFunctionDef], None]


@pytest.fixture(autouse=True)
def _tidy() -> Iterator[None]:
    """What these mistakes leave behind must not show in later tests."""
    yield
    gc.collect()


def broken(function: object, change: Change) -> object:
    """The function as `change` leaves its source."""
    tree = ast.parse(textwrap.dedent(inspect.getsource(cast("Callable[..., object]", function))))
    (definition,) = tree.body
    assert isinstance(definition, ast.AsyncFunctionDef)
    before = ast.dump(definition)
    change(definition)
    assert ast.dump(definition) != before, "the source has changed; this mutation no longer fits"
    namespace = dict(inspect.getmodule(function).__dict__)
    exec(compile(ast.fix_missing_locations(tree), f"<broken {definition.name}>", "exec"), namespace)
    return namespace[definition.name]


def _calls(node: ast.AST, name: str) -> bool:
    return any(isinstance(part, ast.Attribute) and part.attr == name for part in ast.walk(node))


def _block_with(definition: ast.AST, name: str) -> tuple[list[ast.stmt], int]:
    """The innermost block that has a statement with a call of `name`, and where."""
    found: tuple[list[ast.stmt], int] | None = None
    for node in ast.walk(definition):
        for field in ("body", "orelse", "finalbody"):
            block = getattr(node, field, None)
            if isinstance(block, list):
                for position, statement in enumerate(block):
                    if isinstance(statement, ast.stmt) and _calls(statement, name):
                        found = (block, position)
    assert found is not None
    return found


def no_last_checkpoint(definition: ast.AsyncFunctionDef) -> None:
    """`commit()` and `started()` without a cancellation point directly before."""
    block, position = _block_with(definition, "commit")
    assert _calls(block[position - 1], "checkpoint_if_cancelled")
    del block[position - 1]


def commit_too_early(definition: ast.AsyncFunctionDef) -> None:
    """`commit()` before the last cancellation point."""
    block, position = _block_with(definition, "commit")
    block[position - 1], block[position] = block[position], block[position - 1]


def guard_after_startup(definition: ast.AsyncFunctionDef) -> None:
    """The guard is entered once the parallel part is through, as the reference has it."""

    class Move(ast.NodeTransformer):
        def visit_AsyncWith(self, node: ast.AsyncWith) -> ast.AST | list[ast.stmt]:
            self.generic_visit(node)
            if isinstance(node.items[0].context_expr, ast.Name):
                return node.body
            if _calls(node, "commit"):
                position = next(at for at, part in enumerate(node.body) if _calls(part, "commit"))
                entered = ast.AsyncWith([ast.withitem(ast.Name("guard", ast.Load()))], [node.body[position]])
                node.body[position] = entered
            return node

    Move().visit(definition)


def checkpoint_after_start(definition: ast.AsyncFunctionDef) -> None:
    """The caller of the nursery's start does something before it returns."""
    for node in ast.walk(definition):
        if isinstance(node, ast.Try) and isinstance(node.body[-1], ast.Return):
            node.body.insert(-1, ast.parse("await trio.lowlevel.checkpoint()").body[0])


def nothing_is_undone(definition: ast.AsyncFunctionDef) -> None:
    """What steps have noted for a start that fails is forgotten."""

    class Drop(ast.NodeTransformer):
        def visit_For(self, node: ast.For) -> ast.AST:
            return ast.Pass() if _calls(node.iter, "undo") else node

    Drop().visit(definition)


def mistake(change: Change, kind: str, monkeypatch: pytest.MonkeyPatch) -> Kind:
    """Makes a mistake, and says where it shows."""
    if change is checkpoint_after_start:
        monkeypatch.setattr("engine.runtime.start_session", broken(startup.start_session, change))
    else:
        monkeypatch.setattr(startup, "session_main", broken(startup.session_main, change))
    (chosen,) = [one for one in KINDS if one.name == kind]
    return chosen


@pytest.mark.parametrize(
    ("change", "kind"),
    [
        (no_last_checkpoint, "everything forked"),
        (commit_too_early, "everything forked"),
        (guard_after_startup, "persistent"),
        (guard_after_startup, "resumed"),
        (guard_after_startup, "writing"),
        (checkpoint_after_start, "swift"),
        (nothing_is_undone, "locked"),
    ],
)
def test_a_mistake_in_the_start(
    change: Change, kind: str, stored: Stored, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    result = sweep(cancelled(mistake(change, kind, monkeypatch), stored), tmp_path, stop_at=1000)
    print(result)
    assert result.problems


def test_a_turn_that_is_not_withdrawn(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(SessionCore, "withdraw", lambda *_: None)
    result = sweep(run_cancelled(), tmp_path, stop_at=1)
    print(result)
    assert result.problems


def test_a_turn_without_a_fence(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("engine.session.core.INTERRUPT_GRACE", 0.002)
    monkeypatch.setattr(Fence, "emit", Fence.emit_always)
    monkeypatch.setattr(TurnRun, "open", property(lambda _: True))
    result = sweep(interrupted(stubborn=True), tmp_path, stop_at=1)
    print(result)
    assert result.problems


def test_a_command_that_survives_its_call(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async def nothing(_: object) -> None:
        pass

    monkeypatch.setattr("engine.execution._terminal.Terminal.terminate", nothing)
    result = sweep(interrupted(), tmp_path, stop_at=1)
    print(result)
    assert result.problems
