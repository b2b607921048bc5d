"""The calls in a rules file: arguments checked, rules made, examples held against them (tools.md 5.4). Pure."""

from __future__ import annotations

import json
import posixpath
from collections.abc import Callable, Mapping, Sequence
from typing import TypeVar, cast

from engine.exec_policy.errors import RulesError
from engine.exec_policy.hosts import normalize_host
from engine.exec_policy.policy import Policy
from engine.exec_policy.rules import (
    DECISIONS,
    PROTOCOLS,
    Decision,
    HostExecutable,
    NetworkProtocol,
    NetworkRule,
    PrefixRule,
)
from engine.exec_policy.words import join_words, split_words
from engine.records import frozen

__all__ = ["Recorder", "prefix_rules_of"]

_MOST_RULES = 20_000
_PROTOCOL_ALIASES: Mapping[str, NetworkProtocol] = {"https_connect": "https", "http-connect": "https"}

_DECISION_ALIASES: Mapping[str, Decision] = {"deny": "forbidden"}

T = TypeVar("T", bound=str)

# A value with the name of its type: `["string", "x"]`, `["list", [...]]`, `["int", None]`.
Shape = Sequence[object]


class _Refused(ValueError):
    """An argument that makes no rule."""


@frozen
class _Examples:
    """What the rules of one call must match and must not match."""

    line: int | None
    rule: str
    rules: tuple[PrefixRule, ...]
    match: tuple[tuple[str, ...], ...]
    not_match: tuple[tuple[str, ...], ...]


class Recorder:
    """Takes the calls of one file. `line_of` tells the line of a call from the interpreter's call stack."""

    def __init__(self, file: str, line_of: Callable[[str], int | None], known: Mapping[str, HostExecutable]) -> None:
        self.file = file
        self.failure: RulesError | None = None
        """Why the file is refused; whoever runs it sees only that the interpreter stopped."""
        self.prefix_rules: list[PrefixRule] = []
        self.network_rules: list[NetworkRule] = []
        self.host_executables: dict[str, HostExecutable] = {}
        self._line_of = line_of
        self._known = known
        self._examples: list[_Examples] = []
        self._count = 0

    def record(self, function: str, stack: str, arguments: Mapping[str, Shape]) -> None:
        """Takes one call. Raises `RulesError`."""
        line = self._line_of(stack)
        try:
            self._count += 1
            if self._count > _MOST_RULES:
                raise _Refused(f"the file has more than {_MOST_RULES} rules")
            match function:
                case "prefix_rule":
                    self._prefix_rule(line, arguments)
                case "network_rule":
                    self._network_rule(arguments)
                case _:
                    self._host_executable(arguments)
        except _Refused as exc:
            self.failure = RulesError(str(exc), file=self.file, line=line, rule=_call_text(function, arguments))
            raise self.failure from None

    def _prefix_rule(self, line: int | None, arguments: Mapping[str, Shape]) -> None:
        decision = _choice(arguments["decision"], "decision", DECISIONS)
        pattern = _pattern(arguments["pattern"])
        match = _examples(arguments["match"], "match")
        not_match = _examples(arguments["not_match"], "not_match")
        rules = prefix_rules_of(pattern, decision, _justification(arguments["justification"]))
        self.prefix_rules += rules
        if match or not_match:
            self._examples.append(_Examples(line, _call_text("prefix_rule", arguments), rules, match, not_match))

    def _network_rule(self, arguments: Mapping[str, Shape]) -> None:
        decision = _choice(arguments["decision"], "decision", DECISIONS, _DECISION_ALIASES)
        protocol = _choice(arguments["protocol"], "protocol", PROTOCOLS, _PROTOCOL_ALIASES)
        given = _string(arguments["host"], "host")
        try:
            host = normalize_host(given)
        except ValueError as exc:
            raise _Refused(f"`host` can't be {json.dumps(given, ensure_ascii=False)}: {exc}") from None
        self.network_rules.append(NetworkRule(host, protocol, decision, _justification(arguments["justification"])))

    def _host_executable(self, arguments: Mapping[str, Shape]) -> None:
        name = _string(arguments["name"], "name")
        if not name or "/" in name or name in (".", ".."):
            raise _Refused(f"`name` must be the bare name of a program, not {json.dumps(name, ensure_ascii=False)}")
        paths = [_string(item, "paths") for item in _items(arguments["paths"], "paths", "strings")]
        for path in paths:
            if not path.startswith("/"):
                raise _Refused(f"`paths` must be absolute, and `{path}` is not")
            if posixpath.basename(posixpath.normpath(path)) != name:
                raise _Refused(f"`paths` must end in `{name}`, and `{path}` does not")
        normal = frozenset("/" + posixpath.normpath(path).lstrip("/") for path in paths)
        self.host_executables.pop(name, None)
        self.host_executables[name] = HostExecutable(name, normal)

    def check_examples(self) -> None:
        """Holds each example against the rules of its own call, with all host executables. Raises `RulesError`."""
        hosts = {**self._known, **self.host_executables}
        for examples in self._examples:
            policy = Policy(examples.rules, (), hosts)
            for wanted, commands in ((False, examples.not_match), (True, examples.match)):
                for command in commands:
                    if bool(policy.matches(command, resolve_host_executables=True)) != wanted:
                        kind, fault = ("match", "does not match") if wanted else ("not_match", "matches")
                        message = f"the rule {fault} its `{kind}` example `{join_words(command)}`"
                        raise RulesError(message, file=self.file, line=examples.line, rule=examples.rule)


def prefix_rules_of(
    pattern: Sequence[Sequence[str]], decision: Decision, justification: str | None
) -> tuple[PrefixRule, ...]:
    """The rules of one pattern: one for each alternative of its first element."""
    first, *rest = pattern
    groups = tuple(map(tuple, rest))
    return tuple(PrefixRule(program, groups, decision, justification) for program in first)


# --- arguments -----------------------------------------------------------------------------------


def _string(shape: Shape, name: str) -> str:
    if shape[0] != "string":
        raise _Refused(f"`{name}` takes strings, not {shape[0]}")
    return cast(str, shape[1])


def _items(shape: Shape, name: str, of: str) -> Sequence[Shape]:
    if shape[0] != "list":
        raise _Refused(f"`{name}` must be a list of {of}, not {shape[0]}")
    return cast(Sequence[Shape], shape[1])


def _choice(shape: Shape, name: str, choices: Sequence[T], aliases: Mapping[str, T] | None = None) -> T:
    given = _string(shape, name)
    for choice in choices:
        if choice == given:
            return choice
    if aliases and given in aliases:
        return aliases[given]
    raise _Refused(f"`{name}` must be one of {', '.join(choices)}, not {json.dumps(given, ensure_ascii=False)}")


def _justification(shape: Shape) -> str | None:
    if shape[0] == "NoneType":
        return None
    given = _string(shape, "justification")
    if not given.strip():
        raise _Refused("`justification` is blank; leave it out or say why")
    return given


def _pattern(shape: Shape) -> list[list[str]]:
    elements = _items(shape, "pattern", "strings or of lists of strings")
    if not elements:
        raise _Refused("`pattern` is empty; name at least the program")
    return [_alternatives(element) for element in elements]


def _alternatives(shape: Shape) -> list[str]:
    if shape[0] == "string":
        return [cast(str, shape[1])]
    words = [_string(item, "pattern") for item in _items(shape, "pattern", "strings or of lists of strings")]
    if not words:
        raise _Refused("`pattern` has an empty list of alternatives")
    return words


def _examples(shape: Shape, name: str) -> tuple[tuple[str, ...], ...]:
    examples = []
    for item in _items(shape, name, "strings or of lists of strings"):
        if item[0] == "string":
            line = cast(str, item[1])
            try:
                words = split_words(line)
            except ValueError as exc:
                raise _Refused(
                    f"the `{name}` example {json.dumps(line, ensure_ascii=False)} is no line: {exc}"
                ) from None
        else:
            words = [_string(word, name) for word in _items(item, name, "strings or of lists of strings")]
        if not words:
            raise _Refused(f"a `{name}` example is empty")
        examples.append(tuple(words))
    return tuple(examples)


def _call_text(function: str, arguments: Mapping[str, Shape]) -> str:
    """The call as it is told in errors: with the argument that people know it by."""
    name = next(iter(arguments))
    text = f"{function}({name}={_shape_text(arguments[name])})"
    return text if len(text) <= 100 else text[:96] + "...)"


def _shape_text(shape: Shape) -> str:
    match shape[0]:
        case "string":
            return json.dumps(shape[1], ensure_ascii=False)
        case "list":
            return f"[{', '.join(map(_shape_text, cast(Sequence[Shape], shape[1])))}]"
    return f"<{shape[0]}>"
