"""Rules as data, and what a match looks like on the wire (tools.md 5.4). Pure."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Literal

from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = [
    "DECISIONS",
    "PROTOCOLS",
    "Decision",
    "HeuristicMatch",
    "HostExecutable",
    "NetworkProtocol",
    "NetworkRule",
    "PrefixMatch",
    "PrefixRule",
    "RuleMatch",
    "strictest",
]

Decision = Literal["allow", "prompt", "forbidden"]
DECISIONS: tuple[Decision, ...] = ("allow", "prompt", "forbidden")  # the stricter the later

NetworkProtocol = Literal["http", "https", "socks5_tcp", "socks5_udp"]
PROTOCOLS: tuple[NetworkProtocol, ...] = ("http", "https", "socks5_tcp", "socks5_udp")


def strictest(decisions: Iterable[Decision]) -> Decision | None:
    """The one that counts if several hold; None for none."""
    return max(decisions, key=DECISIONS.index, default=None)


@frozen
class PrefixMatch:
    """A rule that speaks of a command. `resolved_program` is the path for which the rule of its name was taken."""

    matched_prefix: tuple[str, ...]
    decision: Decision
    resolved_program: str | None = None
    justification: str | None = None

    def to_json(self) -> JsonObject:
        """The form that `execpolicy check` prints; what is not set is absent."""
        match: dict[str, object] = {"matchedPrefix": list(self.matched_prefix), "decision": self.decision}
        if self.resolved_program is not None:
            match["resolvedProgram"] = self.resolved_program
        if self.justification is not None:
            match["justification"] = self.justification
        return {"prefixRuleMatch": match}


@frozen
class HeuristicMatch:
    """What the heuristics say of a command that no rule speaks of."""

    command: tuple[str, ...]
    decision: Decision


RuleMatch = PrefixMatch | HeuristicMatch


@frozen
class PrefixRule:
    """A decision on every command that begins with `program` and then with one word out of each group of `rest`."""

    program: str
    rest: tuple[tuple[str, ...], ...]
    decision: Decision
    justification: str | None = None

    @classmethod
    def for_words(cls, words: Sequence[str], decision: Decision, justification: str | None = None) -> PrefixRule:
        """The rule for commands that begin with exactly these words."""
        return cls(words[0], tuple((word,) for word in words[1:]), decision, justification)

    def match(self, command: Sequence[str], resolved_program: str | None = None) -> PrefixMatch | None:
        """The match with a command whose first word, or the name of its program, is `program`."""
        length = 1 + len(self.rest)
        if len(command) < length:
            return None
        words = command[1:length]
        if not all(word in group for word, group in zip(words, self.rest, strict=True)):
            return None
        return PrefixMatch((self.program, *words), self.decision, resolved_program, self.justification)


@frozen
class NetworkRule:
    """A decision on connections to one host; `host` is normalised."""

    host: str
    protocol: NetworkProtocol
    decision: Decision
    justification: str | None = None


@frozen
class HostExecutable:
    """The absolute paths at which a program of this name is the real one; other paths get no rule of the name."""

    name: str
    paths: frozenset[str]
