"""What does it cost to ask a policy of 50 entries about paths, and to change a session's settings?"""

from __future__ import annotations

import functools
import importlib
import random
import time
from collections.abc import Callable, Sequence
from pathlib import Path

from benchmarks.lab import Bench
from engine.config.loading import load_config
from engine.permissions.decision import Row
from engine.session.configuration import SessionConfiguration
from engine.session.settings import SessionSettings, SettingsUpdate

__all__ = ["run", "sample_paths", "sample_rows"]

TWINS = {"compiled": "_speedups.projection", "pure": "engine.permissions._projection_py"}
ENTRIES = 50
QUERIES = 1000
CWD = "/home/user/project"
LOOPS = 50  # changes of settings per sample


def sample_rows(chance: random.Random) -> list[Row]:
    """A resolved policy: the disk readable, a workspace, and carve-outs at depths 2 to 8."""
    rows: list[Row] = [("/", "read", 0), (CWD, "write", 1)]
    while len(rows) < ENTRIES:
        below = "/".join(f"part{chance.randint(0, 5)}" for _ in range(chance.randint(1, 6)))
        rows.append((f"{CWD}/{below}", chance.choice(("read", "write", "none")), len(rows)))
    return rows


def sample_paths(chance: random.Random, rows: Sequence[Row]) -> list[str]:
    """What tools ask about: files below entries, relative ones, some with `..`, system files, metadata."""
    tails = ("src/engine/module.py", "a/../b.txt", ".git/hooks/pre-commit", "x", "très/日本語/file.md")
    made: list[str] = []
    while len(made) < QUERIES:
        tail = chance.choice(tails)
        made.append(chance.choice((f"{chance.choice(rows)[0]}/{tail}", tail, f"/usr/lib/python3/{tail}")))
    return made


def run(bench: Bench) -> None:
    """The rows `permissions.*`. Those of the compiled module are missing where there is none."""
    rounds = bench.plan.size("permission_rounds")
    bench.results.note_machine("permissions")
    with bench.progress.stage("permissions", rounds):
        chance = random.Random(1)
        rows = sample_rows(chance)
        asked = sample_paths(chance, rows)
        changes = _changes(bench.folder)
        for _ in range(rounds):
            _ask(bench, rows, asked)
            for key, (title, change) in changes.items():
                _sample(bench, f"permissions.{key}", title, change, LOOPS)
            bench.progress.step()
    pairs = [bench.results.figures.get(f"permissions.query.{twin}") for twin in TWINS]
    if all(pairs):
        compiled, pure = (figure.ours for figure in pairs if figure is not None)
        ratio = [slow / fast for fast, slow in zip(compiled, pure, strict=True)]
        bench.results.figure("permissions.query.ratio", "... pure over compiled", "x").ours.extend(ratio)


def _ask(bench: Bench, rows: list[Row], asked: list[str]) -> None:
    for twin, module in TWINS.items():
        try:
            made = importlib.import_module(module).CompiledPolicy
        except ModuleNotFoundError:
            continue
        policy = made(rows, cwd=CWD, home="/home/user")
        _sample(
            bench,
            f"permissions.compile.{twin}",
            f"compiling a policy of {ENTRIES} entries, {twin}",
            functools.partial(made, rows, cwd=CWD, home="/home/user"),
            10,
        )
        can_write = policy.can_write
        began = time.perf_counter()
        for path in asked:
            can_write(path)
        spent = (time.perf_counter() - began) * 1e6 / len(asked)
        title = f"may this path be written, {ENTRIES} entries, {twin}"
        bench.results.figure(f"permissions.query.{twin}", title, "us").ours.append(spent)


def _sample(bench: Bench, key: str, title: str, action: Callable[[], object], times: int) -> None:
    began = time.perf_counter()
    for _ in range(times):
        action()
    bench.results.figure(key, title, "us").ours.append((time.perf_counter() - began) * 1e6 / times)


def _changes(folder: Path) -> dict[str, tuple[str, Callable[[], object]]]:
    plain = _session(folder, 'sandbox_mode = "workspace-write"\n')
    carved = "".join(f'"/data/place{at}/sub" = "{("read", "write", "none")[at % 3]}"\n' for at in range(ENTRIES - 3))
    many = _session(
        folder,
        'default_permissions = "many"\n[permissions.many.filesystem]\n":root" = "read"\n'
        f'":workspace_roots" = {{"." = "write", "secret" = "none"}}\n{carved}',
    )
    model, nothing = SettingsUpdate(model="other"), SettingsUpdate()
    return {
        "apply.default": ("settings update without a path, workspace-write", lambda: plain.apply(model)),
        "apply.many": (
            f"new cwd under a policy of {ENTRIES} entries, materialised",
            lambda: many.apply(nothing, cwd="/srv/elsewhere").permissions.file_system,
        ),
        "turn.default": (
            "what a turn records of workspace-write, looking at the disk",
            lambda: plain.permissions.turn(plain.view),
        ),
    }


def _session(folder: Path, text: str) -> SessionConfiguration:
    home = folder / "permissions-home"
    home.mkdir(exist_ok=True)
    (home / "config.toml").write_text(text)
    config = load_config(home, cwd=folder, env={"HOME": str(folder)}, system_folder=folder)
    return SessionConfiguration.make(config, SessionSettings(), str(folder))
