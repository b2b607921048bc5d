"""What can go wrong with rules: one that can't be used, and one that can't be saved."""

from __future__ import annotations

from os import PathLike

from engine.errors import ConfigError, EngineError

__all__ = ["AmendmentError", "RulesError"]


class RulesError(ConfigError):
    """A rules file that can't be used: where (file, line, column), which rule, and why (tools.md 5.4).

    `rule` is the call as it is written, shortened; None where no single rule is to blame.
    """

    def __init__(
        self,
        message: str,
        *,
        file: PathLike[str] | str | None = None,
        line: int | None = None,
        column: int | None = None,
        rule: str | None = None,
    ) -> None:
        self.rule = rule
        super().__init__(message, file=file, line=line, column=column, key=rule)


class AmendmentError(EngineError):
    """A rule could not be added to a rules file. The file is as it was; the rule holds for this session only."""

    def __init__(self, message: str, *, file: PathLike[str] | str) -> None:
        self.message = message
        self.file = str(file)
        super().__init__(f"{self.file}: {message}")
