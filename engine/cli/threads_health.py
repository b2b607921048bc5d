"""`engine threads verify` and `repair`: what is wrong, line by line, and what was done about it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import attrs

from engine.cli.progress import progress_bar
from engine.cli.terminal import plain
from engine.cli.threads_choosing import Chosen
from engine.errors import EngineError
from engine.protocol.wire import JsonObject
from engine.thread_store.locks import RolloutLocks
from engine.thread_store.names import NAMES_FILE
from engine.thread_store.names_repairing import NamesRepair, repair_names
from engine.thread_store.repairing import FileRepair, drop_index, drop_stale_locks, repair_file
from engine.thread_store.verifying import FileReport, HomeReport, IndexReport, verify_file, verify_home

__all__ = ["repair_threads", "verify_threads"]


def verify_threads(home: Path, chosen: Sequence[Chosen], *, as_json: bool) -> int:
    """Prints a report on some threads, or on the whole home; 1 if anything is wrong."""
    report = _examine(home, chosen)
    if as_json:
        print(json.dumps(_report_json(report), ensure_ascii=False))
    else:
        for line in report_lines(report, whole=not chosen):
            print(line)
    return 0 if report.clean else 1


def repair_threads(home: Path, chosen: Sequence[Chosen], *, as_json: bool) -> int:
    """Repairs some threads, or everything in the home; 1 if something could not be repaired."""
    everything = not chosen
    paths = [each.path for each in chosen]
    dropped_index = False
    locks_dropped = 0
    names: NamesRepair | None = None
    refused: list[tuple[str, str]] = []
    if everything:
        report = _examine(home, ())
        paths = [file.path for file in report.files if not file.clean]
        if report.index.problems:
            drop_index(home)
            dropped_index = True
        locks_dropped = drop_stale_locks(home)
        try:
            names = repair_names(home)
        except EngineError as exc:
            refused.append((str(home / NAMES_FILE), str(exc)))
    done: list[FileRepair] = []
    locks = RolloutLocks(home)
    for path in paths:
        try:
            done.append(_repair(path, locks))
        except (EngineError, OSError) as exc:
            refused.append((path, str(exc)))
        else:
            if not done[-1].gone and not (after := _verify(path, locks)).clean:
                refused.append((path, "; ".join(after.problems) or "it was damaged again meanwhile"))
    if as_json:
        print(
            json.dumps(
                {
                    "repaired": [attrs.asdict(each) for each in done],
                    "refused": [{"path": path, "reason": reason} for path, reason in refused],
                    "names": None if names is None else attrs.asdict(names),
                    "index_removed": dropped_index,
                    "locks_removed": locks_dropped,
                },
                ensure_ascii=False,
            )
        )
    else:
        for each in done:
            print(plain(repair_line(each)))
        if names is not None:
            print(plain(names_line(names)))
        if dropped_index:
            print("the index said something wrong and was removed; it is built anew when it is used")
        if locks_dropped:
            print(f"{_count(locks_dropped, 'lock')} of writers that were killed removed")
        if everything and not (done or refused or names or dropped_index or locks_dropped):
            print("nothing is damaged")
    for path, reason in refused:
        print(plain(f"error: {path} is not repaired: {reason}"), file=sys.stderr)
    return 1 if refused else 0


def _repair(path: str, locks: RolloutLocks) -> FileRepair:
    size = Path(path).stat().st_size
    with progress_bar("repairing", sys.stderr) as bar:
        return repair_file(path, locks, lambda position: bar.tell(position, 2 * size))


def _verify(path: str, locks: RolloutLocks) -> FileReport:
    size = os.path.getsize(path) if os.path.exists(path) else 0
    with progress_bar("verifying", sys.stderr) as bar:
        return verify_file(path, locks, lambda position: bar.tell(position, size))


def report_lines(report: HomeReport, *, whole: bool) -> Iterator[str]:
    """What is wrong, then a summary."""
    damaged = lines = 0
    for file in report.files:
        for text in file.problems:
            yield plain(f"{file.path}: {text}")
        if not file.clean:
            damaged += 1
            lines += file.damaged
            yield from map(plain, _line_problems(file))
        for text in file.notes:
            yield plain(f"note: {file.path}: {text}")
        if file.holder is not None:
            yield plain(f"note: {file.path} is being written by {file.holder}")
    yield from map(plain, report.names)
    for text in report.index.problems:
        yield plain(f"{report.index.path}: {text}")
    for text in report.notes:
        yield plain(f"note: {text}")
    if whole:
        for text in report.index.notes:
            yield plain(f"note: index: {text}")
    if report.stale_locks:
        yield f"note: {_count(len(report.stale_locks), 'lock')} of writers that were killed; the next writer removes it"
    size = sum(file.size for file in report.files)
    looked = f"{_count(len(report.files), 'thread')}, {_bytes(size)}"
    if not damaged:
        wrong = [what for what, found in (("the index", report.index.problems), ("a name", report.names)) if found]
        verdict = f"{' and '.join(wrong)} is wrong" if wrong else "nothing is wrong"
    else:
        verdict = f"{damaged} damaged, {_count(lines, 'line')} lost"
    yield f"{looked}: {verdict}"
    if not report.clean:
        yield "`engine threads repair --all` repairs what it can and keeps the damaged files"


def _line_problems(file: FileReport) -> Iterator[str]:
    found = file.rollout
    if found is None:
        return
    for problem in found.problems:
        yield f"{file.path}: line {problem.number} (bytes {problem.start}-{problem.end}): {problem.text}"
    left = found.damaged - len(found.problems)
    if left > 0:
        yield f"{file.path}: {left} more damaged lines"


def repair_line(done: FileRepair) -> str:
    """What was done, in one line."""
    if done.aside is None:
        return f"{done.path}: nothing is damaged"
    if done.gone:
        return f"{done.path}: nothing in it can be read; it is kept as {done.aside}"
    parts = [f"{_count(done.lines, 'line')} kept"]
    if done.recovered:
        parts.append(f"{done.recovered} of them recovered from damaged ones")
    if done.lost:
        parts.append(f"{_count(done.lost, 'line')} can't be read")
    if done.made_meta:
        parts.append("a new first line was made")
    return f"{done.path}: {', '.join(parts)}; as it was: {done.aside}"


def names_line(done: NamesRepair) -> str:
    """What was done to the names, in one line."""
    parts = [f"{_count(done.lines, 'line')} kept"]
    if done.recovered:
        parts.append(f"{done.recovered} of them recovered from damaged ones")
    if done.lost:
        parts.append(f"{_count(done.lost, 'line')} can't be read")
    return f"{done.path}: {', '.join(parts)}; as it was: {done.aside}"


def _examine(home: Path, chosen: Sequence[Chosen]) -> HomeReport:
    if chosen:
        locks = RolloutLocks(home)
        files = tuple(_verify(each.path, locks) for each in chosen)
        return HomeReport(home=str(home), files=files, index=IndexReport(path=""))
    with progress_bar("verifying", sys.stderr) as bar:
        return verify_home(home, progress=lambda path, done, total: bar.tell(done, total))


def _report_json(report: HomeReport) -> JsonObject:
    return {
        "clean": report.clean,
        "home": report.home,
        "files": [
            {
                "path": file.path,
                "thread_id": file.thread_id,
                "clean": file.clean,
                "bytes": file.size,
                "lines": 0 if file.rollout is None else file.rollout.lines,
                "damaged": file.damaged,
                "foreign": 0 if file.rollout is None else file.rollout.foreign,
                "torn": file.rollout is not None and file.rollout.torn,
                "problems": list(file.problems),
                "damaged_lines": []
                if file.rollout is None or file.clean
                else [attrs.asdict(problem) for problem in file.rollout.problems],
                "notes": list(file.notes),
                "holder": None if file.holder is None else attrs.asdict(file.holder),
            }
            for file in report.files
        ],
        "index": attrs.asdict(report.index),
        "names": list(report.names),
        "stale_locks": list(report.stale_locks),
        "notes": list(report.notes),
    }


def _count(number: int, what: str) -> str:
    return f"{number:,} {what}{'' if number == 1 else 's'}"


def _bytes(size: int) -> str:
    value = float(size)
    for unit in ("bytes", "kB", "MB"):
        if value < 1000:
            return f"{value:.0f} {unit}" if unit == "bytes" else f"{value:.1f} {unit}"
        value /= 1000
    return f"{value:.1f} GB"
