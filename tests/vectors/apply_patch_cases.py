"""Runs one golden case of the patch tool and gives what it expects and what it got (the README beside the vectors)."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from engine.tools.apply_patch import (
    ApplyPatchError,
    Intercepted,
    ModelError,
    RealFileSystem,
    apply_patch,
    parse_patch,
    recognise,
    verify_patch,
)

__all__ = ["lay_out", "run_case"]

JsonObject = Mapping[str, object]

_FIELDS = ("exit_code", "stdout", "stderr", "files", "empty_dirs", "error_kind")


def run_case(case: JsonObject, area: JsonObject, root: Path) -> tuple[dict[str, object], dict[str, object]]:
    """Run a file case or a classification in `root`, a fresh and empty directory; returns (expected, got).

    `area` is the object that the case stands in; neither kind needs it, the parameter is there for uniformity.
    """
    del area
    return _run_classification(case, root) if "argv" in case else _run_file_case(case, root)


def lay_out(case: JsonObject, root: Path) -> None:
    """Make the files and empty directories that the case starts from."""
    given = _object(case.get("input", {}))
    for name, content in _object(given.get("files", {})).items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_bytes(_text(content).encode())
    for directory in _list(given.get("empty_dirs", [])):
        (root / _text(directory)).mkdir(parents=True, exist_ok=True)


def _run_file_case(case: JsonObject, root: Path) -> tuple[dict[str, object], dict[str, object]]:
    lay_out(case, root)
    wanted = _object(case.get("expect_release_0_163_0", case["expect"]))
    expected = {field: wanted[field] for field in _FIELDS}
    error: ApplyPatchError | None
    try:
        result = apply_patch(parse_patch(_text(case["patch"])), root, RealFileSystem())
        exit_code, stdout, stderr, error = result.exit_code, result.stdout, result.stderr, result.error
    except ApplyPatchError as refused:
        exit_code, stdout, stderr, error = 1, "", f"{refused.cli_text()}\n", refused
    got: dict[str, object] = {
        "exit_code": exit_code,
        "stdout": stdout.replace(str(root), "{root}"),
        "stderr": stderr.replace(str(root), "{root}"),
        "files": {
            str(path.relative_to(root)): path.read_bytes().decode() for path in root.rglob("*") if path.is_file()
        },
        "empty_dirs": sorted(
            str(path.relative_to(root)) for path in root.rglob("*") if path.is_dir() and not any(path.iterdir())
        ),
        "error_kind": None if error is None else error.error_kind,
    }
    expected["empty_dirs"] = sorted(_text(name) for name in _list(expected["empty_dirs"]))
    return expected, got


def _run_classification(case: JsonObject, root: Path) -> tuple[dict[str, object], dict[str, object]]:
    lay_out(case, root)
    (root / "sub" / "deep").mkdir(parents=True, exist_ok=True)
    (root / "my dir").mkdir(exist_ok=True)
    return dict(_object(case["expect"])), _classify([_text(part) for part in _list(case["argv"])], root)


def _classify(argv: list[str], root: Path) -> dict[str, object]:
    """The class of a command as a handler sees it: a patch that does not verify, or is empty, is a model error."""
    recognition = recognise(argv)
    if isinstance(recognition, ModelError):
        return {"result": "model_error"}
    if not isinstance(recognition, Intercepted):
        return {"result": "ordinary_shell"}
    try:
        verified = verify_patch(recognition.patch, root / (recognition.workdir or ""), RealFileSystem())
    except ApplyPatchError:
        return {"result": "model_error"}
    if not verified.files:
        return {"result": "model_error"}
    return {"result": "intercepted", "workdir": recognition.workdir}


# --- reading JSON ------------------------------------------------------------------------------------


def _object(value: object) -> JsonObject:
    if not isinstance(value, Mapping):
        raise TypeError(f"expected an object, got {value!r}")
    return value


def _list(value: object) -> list[object]:
    if not isinstance(value, list):
        raise TypeError(f"expected a list, got {value!r}")
    return value


def _text(value: object) -> str:
    if not isinstance(value, str):
        raise TypeError(f"expected a text, got {value!r}")
    return value
