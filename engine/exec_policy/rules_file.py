"""One rules file: Starlark that calls `prefix_rule`, `network_rule` and `host_executable` (tools.md 5.4).

The interpreter runs with bounds on nesting, calls and time; a file that crosses one is refused like any broken file.
Memory is not bounded: rules come from the user and from projects the user trusts.
"""

from __future__ import annotations

import re
import time
from collections.abc import Callable, Mapping
from typing import TYPE_CHECKING

from engine.exec_policy.calls import Recorder
from engine.exec_policy.errors import RulesError
from engine.exec_policy.nesting import nesting_error_line
from engine.exec_policy.rules import HostExecutable, NetworkRule, PrefixRule
from engine.records import frozen

if TYPE_CHECKING:
    from starlark import Dialect

__all__ = ["RulesFile", "read_rules"]

_MOST_CHARACTERS = 1024 * 1024
_MOST_CALLS = 100  # function calls in each other
_MOST_SECONDS = 5.0

_NAME = "rules"  # what the interpreter calls the text; the real name could look like part of a message
_PRELUDE_NAME = "prelude"
# Values cross into Python as JSON, where a tuple is a list; so their types are told here, as deep as they matter. The
# place of a call is known only while it runs.
_PRELUDE = """
def _bind(record):
    def leaf(value):
        return [type(value), value if type(value) == "string" else None]

    def inner(value):
        return ["list", [leaf(item) for item in value]] if type(value) == "list" else leaf(value)

    def shape(value):
        return ["list", [inner(item) for item in value]] if type(value) == "list" else leaf(value)

    def prefix_rule(pattern, decision = "allow", match = [], not_match = [], justification = None):
        record("prefix_rule", call_stack(), {
            "pattern": shape(pattern), "decision": leaf(decision), "match": shape(match),
            "not_match": shape(not_match), "justification": leaf(justification),
        })

    def network_rule(host, protocol, decision, justification = None):
        record("network_rule", call_stack(), {
            "host": leaf(host), "protocol": leaf(protocol), "decision": leaf(decision),
            "justification": leaf(justification),
        })

    def host_executable(name, paths):
        record("host_executable", call_stack(), {"name": leaf(name), "paths": shape(paths)})

    return prefix_rule, network_rule, host_executable

prefix_rule, network_rule, host_executable = _bind(_record)
"""

_FRAME = re.compile(rf"^  \* {_NAME}:(\d+), in ", re.MULTILINE)
_PLACE = re.compile(rf"^ *--> ({_NAME}|{_PRELUDE_NAME}):(\d+):(\d+)$", re.MULTILINE)
_MESSAGE = re.compile(r"^error: (.*?)(?=^ *-->|\Z)", re.MULTILINE | re.DOTALL)


@frozen
class RulesFile:
    """What a file says, in its order; examples have been checked."""

    prefix_rules: tuple[PrefixRule, ...] = ()
    network_rules: tuple[NetworkRule, ...] = ()
    host_executables: tuple[HostExecutable, ...] = ()


def read_rules(text: str, *, file: str, known: Mapping[str, HostExecutable] | None = None) -> RulesFile:
    """The rules of a text. `file` names it in errors; `known` are host executables of the files before it.

    Blocks for at most a few seconds. Raises `RulesError`, with the line and the rule where they are known.
    """
    if len(text) > _MOST_CHARACTERS:
        raise RulesError(f"has more than {_MOST_CHARACTERS} characters", file=file)
    deep = nesting_error_line(text)
    if deep is not None:
        raise RulesError("is nested too deeply", file=file, line=deep, rule=_source_line(text, deep))
    recorder = Recorder(file, _calling_line, known or {})
    _evaluate(text, recorder, file)
    recorder.check_examples()
    return RulesFile(
        tuple(recorder.prefix_rules), tuple(recorder.network_rules), tuple(recorder.host_executables.values())
    )


def _calling_line(stack: str) -> int | None:
    """The line of the file from which a function of the prelude was called."""
    frames = _FRAME.findall(stack)
    return int(frames[-1]) if frames else None


def _evaluate(text: str, recorder: Recorder, file: str) -> None:
    import starlark

    module = starlark.Module()
    module.add_callable("_record", recorder.record)
    dialect = _dialect()
    watching = starlark.Globals.extended_by([starlark.LibraryExtension.CallStack])
    prelude = starlark.parse(_PRELUDE_NAME, _PRELUDE, dialect)
    starlark.eval_with(starlark.EvalOptions(max_callstack_size=_MOST_CALLS), module, prelude, watching)
    module["_record"] = module["_bind"] = None

    is_late = _deadline(_MOST_SECONDS)
    options = starlark.EvalOptions(check_cancelled=is_late, max_callstack_size=_MOST_CALLS)
    try:
        starlark.eval_with(options, module, starlark.parse(_NAME, text, dialect), starlark.Globals.standard())
    except starlark.StarlarkError as exc:
        if recorder.failure is not None:
            raise recorder.failure from None
        if is_late():
            raise RulesError(f"takes more than {_MOST_SECONDS:g} seconds", file=file) from None
        raise _translated(str(exc), text, file) from None
    except BaseException as exc:
        if type(exc).__name__ != "PanicException":
            raise
        raise RulesError("made the interpreter fail", file=file) from None


def _dialect() -> Dialect:
    from starlark import Dialect

    dialect = Dialect.extended()
    dialect.enable_f_strings = True
    return dialect


def _deadline(seconds: float) -> Callable[[], bool]:
    end = time.monotonic() + seconds
    return lambda: time.monotonic() > end


def _translated(report: str, text: str, file: str) -> RulesError:
    """The interpreter's report as an error of ours: its message, the place, and the line there."""
    found = _MESSAGE.search(report)
    message = " ".join((found[1] if found else report).split()).replace(f"{_PRELUDE_NAME}.", "")
    place = _PLACE.search(report)
    line, column = None, None
    if place is not None and place[1] == _NAME:
        line, column = int(place[2]), int(place[3])
    elif (calling := _calling_line(report)) is not None:
        line = calling
    rule = None if line is None else _source_line(text, line)
    return RulesError(message[:500], file=file, line=line, column=column, rule=rule)


def _source_line(text: str, line: int) -> str | None:
    lines = text.split("\n")
    source = lines[line - 1].strip() if line <= len(lines) else ""
    return (source if len(source) <= 100 else source[:97] + "...") or None
