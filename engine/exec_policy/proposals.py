"""Which rule is offered for saving when a user is asked about a command (tools.md 4.4). Pure."""

from __future__ import annotations

import posixpath
from collections.abc import Callable, Sequence

from engine.exec_policy.policy import Evaluation, Policy
from engine.exec_policy.rules import Decision, HeuristicMatch, PrefixMatch, PrefixRule

__all__ = ["derived_proposal", "is_banned", "requested_proposal"]

Command = tuple[str, ...]
Unmatched = Callable[[Sequence[str]], Decision]


def _banned() -> frozenset[Command]:
    """Prefixes that would allow anything at all: interpreters, shells, and programs that run others."""
    with_options = {
        **dict.fromkeys(("python", "python3"), ("-", "-c")),
        **dict.fromkeys(("bash", "sh", "zsh"), ("-c", "-lc")),
        **dict.fromkeys(("pwsh", "powershell", "powershell.exe"), ("-Command", "-c")),
        **dict.fromkeys(("node", "perl", "ruby", "lua"), ("-e",)),
        "php": ("-r",),
        "py": ("-3",),
        **dict.fromkeys(("pythonw", "pyw", "pypy", "pypy3", "git", "env", "sudo", "osascript"), ()),
    }
    return frozenset(
        prefix
        for program, options in with_options.items()
        for prefix in ((program,), *((program, option) for option in options))
    )


_BANNED = _banned()


def is_banned(prefix: Sequence[str]) -> bool:
    """Whether a rule for this prefix would allow more than anybody can mean. A path counts as its program."""
    return bool(prefix) and (posixpath.basename(prefix[0]), *prefix[1:]) in _BANNED


def requested_proposal(
    prefix: Sequence[str],
    evaluation: Evaluation,
    policy: Policy,
    commands: Sequence[Command],
    unmatched: Unmatched,
) -> Command | None:
    """The prefix a model asks for, if nothing speaks against it and saving it would let all commands run."""
    if not prefix or is_banned(prefix) or any(isinstance(match, PrefixMatch) for match in evaluation.matches):
        return None
    amended = policy.extended([PrefixRule.for_words(prefix, "allow")])
    would_be = amended.check(commands, resolve_host_executables=True, unmatched=unmatched)
    return tuple(prefix) if would_be.decision == "allow" else None


def derived_proposal(evaluation: Evaluation) -> Command | None:
    """The whole command that the heuristics decided on, so that it need not be asked about again.

    For a prompt: the first command prompted for, unless a rule prompts. For an allowed command: the first one, unless a
    rule speaks of any; it is offered if the sandbox turns the command down.
    """
    decision = evaluation.decision
    rules = [match for match in evaluation.matches if isinstance(match, PrefixMatch)]
    if any(decision == "allow" or rule.decision == decision for rule in rules):
        return None
    decided = (
        match for match in evaluation.matches if isinstance(match, HeuristicMatch) and match.decision == decision
    )
    first = next(decided, None)
    return None if first is None or is_banned(first.command) else first.command
