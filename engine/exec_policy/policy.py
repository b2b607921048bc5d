"""All rules in force, and what they say of a command (tools.md 5.4). Pure; a policy never changes."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Iterable, Mapping, Sequence
from types import MappingProxyType

import attrs

from engine.exec_policy.rules import (
    Decision,
    HeuristicMatch,
    HostExecutable,
    NetworkRule,
    PrefixMatch,
    PrefixRule,
    RuleMatch,
    strictest,
)
from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = ["EMPTY_POLICY", "Evaluation", "Policy", "listed_path"]


@frozen
class Evaluation:
    """Every match of one command or several, in the order of the rules."""

    matches: tuple[RuleMatch, ...]

    @property
    def decision(self) -> Decision | None:
        """The strictest of all matches; None without one."""
        return strictest(match.decision for match in self.matches)

    def by_rule(self, decision: Decision) -> list[PrefixMatch]:
        """The rules that decided so."""
        return [match for match in self.matches if isinstance(match, PrefixMatch) and match.decision == decision]

    def to_json(self) -> JsonObject:
        """What `execpolicy check` prints."""
        matches = [match.to_json() for match in self.matches if isinstance(match, PrefixMatch)]
        made: dict[str, object] = {"matchedRules": matches}
        decision = self.decision
        return made if decision is None else {**made, "decision": decision}


@frozen(eq=False)
class Policy:
    """The rules of all files, in order. Make a larger one with `extended`."""

    prefix_rules: tuple[PrefixRule, ...] = ()
    network_rules: tuple[NetworkRule, ...] = ()
    host_executables: Mapping[str, HostExecutable] = MappingProxyType({})
    _by_program: Mapping[str, tuple[PrefixRule, ...]] = attrs.field(init=False, repr=False)

    def __attrs_post_init__(self) -> None:
        by_program: dict[str, list[PrefixRule]] = {}
        for rule in self.prefix_rules:
            by_program.setdefault(rule.program, []).append(rule)
        made = {program: tuple(rules) for program, rules in by_program.items()}
        object.__setattr__(self, "_by_program", made)

    def extended(
        self,
        prefix_rules: Iterable[PrefixRule] = (),
        network_rules: Iterable[NetworkRule] = (),
        host_executables: Iterable[HostExecutable] = (),
    ) -> Policy:
        """The policy with more rules behind its own. Of several host executables of a name the last one holds."""
        return Policy(
            (*self.prefix_rules, *prefix_rules),
            (*self.network_rules, *network_rules),
            {**self.host_executables, **{host.name: host for host in host_executables}},
        )

    def matches(self, command: Sequence[str], *, resolve_host_executables: bool) -> tuple[PrefixMatch, ...]:
        """The rules that speak of a command, in order.

        With `resolve_host_executables`, rules of the program's name count for an absolute path that no rule speaks of,
        unless a host executable of that name lists other paths only.
        """
        if not command:
            return ()
        found = self._matches(command, command[0], None)
        if found or not resolve_host_executables or not command[0].startswith("/"):
            return found
        path = command[0]
        name = posixpath.basename(posixpath.normpath(path))
        host = self.host_executables.get(name)
        found = self._matches(command, name, posixpath.normpath(path))
        if host is None or listed_path(path) in host.paths:
            return found
        # A path that is listed only by its text may lead elsewhere: it gets what is strict, but is allowed nothing.
        listed_by_text = posixpath.normpath(path) in host.paths
        return tuple(match for match in found if listed_by_text and match.decision != "allow")

    def _matches(self, command: Sequence[str], program: str, resolved: str | None) -> tuple[PrefixMatch, ...]:
        matches = (rule.match(command, resolved) for rule in self._by_program.get(program, ()))
        return tuple(match for match in matches if match is not None)

    def check(
        self,
        commands: Iterable[Sequence[str]],
        *,
        resolve_host_executables: bool,
        unmatched: Callable[[Sequence[str]], Decision] | None = None,
    ) -> Evaluation:
        """All matches of all commands. `unmatched` decides on commands that no rule speaks of."""
        found: list[RuleMatch] = []
        for command in commands:
            matches = self.matches(command, resolve_host_executables=resolve_host_executables)
            found += matches
            if not matches and unmatched is not None:
                found.append(HeuristicMatch(tuple(command), unmatched(command)))
        return Evaluation(tuple(found))

    def network_domains(self) -> tuple[tuple[str, ...], tuple[str, ...]]:
        """The hosts that network rules allow and deny, each in the order of the rules; the last rule of a host holds.

        `prompt` changes nothing.
        """
        decided: dict[str, Decision] = {}
        for rule in self.network_rules:
            if rule.decision != "prompt":
                decided.pop(rule.host, None)
                decided[rule.host] = rule.decision
        allowed = tuple(host for host, decision in decided.items() if decision == "allow")
        return allowed, tuple(host for host, decision in decided.items() if decision == "forbidden")


def listed_path(path: str) -> str:
    """An absolute path as lists of host executables are searched for it.

    `..` stays: behind a symbolic link it leads elsewhere than the text says, so such a path is on no list.
    """
    return "/" + "/".join(part for part in path.split("/") if part not in ("", "."))


EMPTY_POLICY = Policy()
