"""The rules in force on this machine: read again when their files change, never lost to a broken one (tools.md 5.4)."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import TYPE_CHECKING

import attrs
import trio

from engine.exec_policy.amendments import append_prefix_rule, default_rules_file
from engine.exec_policy.errors import AmendmentError, RulesError
from engine.exec_policy.loading import FOLDER, LoadedRules, load_folders
from engine.exec_policy.policy import Policy
from engine.exec_policy.rules import PrefixRule
from engine.records import define

if TYPE_CHECKING:
    from engine.config.model import Config

__all__ = ["RulesInForce"]


@define(eq=False)
class RulesInForce:
    """The rules of one session: those of files, those an administrator requires, those agreed to meanwhile.

    `folders` are the configuration folders, lowest precedence first; `required` go behind all others.
    """

    home: str
    folders: Sequence[str]
    required: Sequence[PrefixRule] = ()
    _agreed: list[PrefixRule] = attrs.field(factory=list, init=False)
    _loaded: LoadedRules = attrs.field(factory=LoadedRules, init=False)
    _identity: object = attrs.field(default=(), init=False)
    _told: set[str] = attrs.field(factory=set, init=False)
    _policy: Policy | None = attrs.field(default=None, init=False)
    _lock: trio.Lock = attrs.field(factory=trio.Lock, init=False)

    @classmethod
    def of(cls, config: Config) -> RulesInForce:
        """The rules that a configuration brings. Raises `RulesError` for required ones that can't be used."""
        required: Sequence[PrefixRule] = ()
        if config.requirements.rules is not None:
            from engine.exec_policy.requirements import requirement_rules

            source = config.requirements.source_of("rules")
            try:
                required = requirement_rules(config.requirements.rules)
            except RulesError as exc:
                raise RulesError(f"invalid rules in requirements (set by {source}): {exc.message}") from exc
        return cls(str(config.home), config.rule_folders, required)

    async def policy(self, warn: Callable[[str], None]) -> Policy:
        """The rules as they are now; `warn` is told once of each file that is not in force.

        Looks at the folders, and reads them in a thread where something changed. Raises `RulesError` for a file that is
        there but can't be read: what it forbids is unknown.
        """
        identity = _identity(self.folders)
        if self._policy is None or identity != self._identity:
            async with self._lock:
                if identity:
                    self._loaded = await trio.to_thread.run_sync(load_folders, self.folders, abandon_on_cancel=True)
                else:
                    self._loaded = LoadedRules()
                self._identity = identity
                self._policy = self._loaded.policy.extended([*self._agreed, *self.required])
            for warning in self._loaded.warnings():
                if warning not in self._told:
                    self._told.add(warning)
                    warn(warning)
        return self._policy

    async def agree(self, prefix: Sequence[str]) -> str | None:
        """Commands with this prefix may run from now on, here and, where it can be saved, everywhere.

        Returns what went wrong with saving. Not cut off by a cancellation.
        """
        problem: str | None = None
        with trio.CancelScope(shield=True):  # bounded: five seconds for a lock of another program
            try:
                await trio.to_thread.run_sync(append_prefix_rule, default_rules_file(self.home), tuple(prefix))
            except AmendmentError as exc:
                problem = str(exc)
        self._agreed.append(PrefixRule.for_words(tuple(prefix), "allow"))
        self._policy = None
        return problem


def _identity(folders: Sequence[str]) -> tuple[object, ...]:
    """What changes with the rules files; empty where there are none, which is the usual case and costs a look each."""
    found: list[object] = []
    for folder in folders:
        path = os.path.join(folder, FOLDER)
        try:
            with os.scandir(path) as entries:
                for entry in sorted(entries, key=lambda entry: entry.name):
                    status = entry.stat(follow_symlinks=False)
                    found.append((entry.path, status.st_ino, status.st_size, status.st_mtime_ns))
        except FileNotFoundError:
            continue
        except OSError as exc:
            found.append((path, exc.errno))
    return tuple(found)
