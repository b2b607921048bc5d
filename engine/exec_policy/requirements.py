"""Rules an administrator sets in requirements.toml: prompts and refusals that nobody can loosen (config.md 2). Pure."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

from engine.exec_policy.calls import prefix_rules_of
from engine.exec_policy.errors import RulesError
from engine.exec_policy.rules import Decision, PrefixRule

__all__ = ["requirement_rules"]


def requirement_rules(table: object) -> tuple[PrefixRule, ...]:
    """The rules of a `[rules]` table, to be put behind all others. It holds `prefix_rules`, a list of tables.

    `pattern` is a list of `{token = "..."}` and `{any_of = [...]}`; `decision` is prompt or forbidden, as the strictest
    rule wins anyway. Raises `RulesError` without a file; who knows the source of the table says it.
    """
    if not isinstance(table, Mapping) or "prefix_rules" not in table:
        raise RulesError("rules must be a table with `prefix_rules`")
    entries = table["prefix_rules"]
    if not _is_list(entries):
        raise RulesError("rules prefix_rules must be a list")
    if not entries:
        raise RulesError("rules prefix_rules cannot be empty")
    return tuple(
        rule for index, entry in enumerate(entries) for rule in _rules(entry, f"rules prefix_rule at index {index}")
    )


def _rules(entry: object, where: str) -> tuple[PrefixRule, ...]:
    if not isinstance(entry, Mapping):
        raise RulesError(f"{where} is not a table")
    justification = entry.get("justification")
    if justification is not None and (not isinstance(justification, str) or not justification.strip()):
        raise RulesError(f"{where} has an empty justification")
    pattern = entry.get("pattern")
    if not _is_list(pattern) or not pattern:
        raise RulesError(f"{where} has an empty pattern")
    words = [
        _alternatives(token, f"{where} has an invalid pattern token at index {at}") for at, token in enumerate(pattern)
    ]
    return prefix_rules_of(words, _decision(entry.get("decision"), where), justification)


def _decision(given: object, where: str) -> Decision:
    if given is None:
        raise RulesError(f"{where} is missing a decision")
    if given == "allow":
        raise RulesError(
            f"{where} has decision 'allow', which is not permitted in requirements: they are merged with all other "
            "rules and the most restrictive one holds (use 'prompt' or 'forbidden')"
        )
    if given == "prompt":
        return "prompt"
    if given == "forbidden":
        return "forbidden"
    raise RulesError(f"{where} has an unknown decision (use 'prompt' or 'forbidden')")


def _alternatives(token: object, where: str) -> list[str]:
    if not isinstance(token, Mapping):
        raise RulesError(f"{where}: must be a table with token or any_of")
    word, any_of = token.get("token"), token.get("any_of")
    if (word is None) == (any_of is None):
        raise RulesError(f"{where}: set either token or any_of" + ("" if word is None else ", not both"))
    if any_of is None:
        return [_token(word, f"{where}: token cannot be empty")]
    if not _is_list(any_of) or not any_of:
        raise RulesError(f"{where}: any_of cannot be empty")
    return [_token(item, f"{where}: any_of cannot include empty tokens") for item in any_of]


def _token(word: object, message: str) -> str:
    if not isinstance(word, str) or not word.strip():
        raise RulesError(message)
    return word


def _is_list(value: object) -> bool:
    return isinstance(value, Sequence) and not isinstance(value, str)
