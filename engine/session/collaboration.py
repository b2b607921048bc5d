"""Collaboration modes: how the model and the user work together (session.md 4.2, config.md 8).

`default` is the usual way; in `plan` the model looks and thinks and changes nothing. A session starts in `default`
without a word about it; the model is told of a mode once somebody chooses one.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Final

from engine.errors import InvalidRequest
from engine.protocol.settings import CollaborationMode, CollaborationSettings
from engine.records import frozen

if TYPE_CHECKING:
    from engine.config.model import Config

__all__ = ["MODES", "Collaboration", "chosen", "recorded"]

_DEFAULT: Final = (
    "You work in the mode `default`; what was said about another mode no longer holds. Do what the user asks for, with "
    "all tools you have. Don't ask for leave to begin: make sensible assumptions, say which, and go on. Ask only where "
    "a wrong guess would be costly and nothing at hand can tell. The user may choose another mode: the known ones are "
    "`default` and `plan`."
)
_PLAN: Final = (
    "You work in the mode `plan`, until the user chooses another one. Its result is a plan, not a change.\n"
    "- Change nothing: no patches, no commands that write outside of temporary folders, no commits, no installs. Read "
    "files, search, run tests and other commands that leave the tree as it is, as much as it takes.\n"
    "- If the user asks you to carry something out, plan how it would be carried out, and say that another mode is "
    "needed for doing it.\n"
    "- First find out what can be found out. Then ask about what only the user can decide, one matter at a time, with "
    "the choices and the one you would take.\n"
    "- End with a plan that somebody else could follow without asking: the aim, the files and functions to change and "
    "how, what stays as it is, the order of the steps, how each is checked, and the risks."
)
MODES: Final[Mapping[str, str]] = {"default": _DEFAULT, "plan": _PLAN}
_PLAN_EFFORT: Final = "medium"


@frozen
class Collaboration:
    """The mode in force. `instructions` is what the model is told about it, None for nothing.

    `before` is the reasoning effort to go back to, as a tuple of one, where the mode brought its own.
    """

    mode: str = "default"
    instructions: str | None = None
    before: tuple[str | None] | None = None


def chosen(
    wanted: CollaborationMode | str, now: Collaboration, *, model: str | None, effort: str | None, config: Config
) -> tuple[Collaboration, str | None, str | None]:
    """The mode, model and effort after somebody chose a mode. Raises `InvalidRequest` for a mode nobody offers.

    A name brings the mode's own effort and text, and the mode `default` gives back the effort from before. A
    `CollaborationMode` sets all it has; without instructions of its own it brings the mode's.
    """
    name = wanted if isinstance(wanted, str) else wanted.mode
    if name not in MODES:
        raise InvalidRequest(f"unknown collaboration mode {name!r}; known are {', '.join(MODES)}")
    if isinstance(wanted, CollaborationMode):
        settings = wanted.settings
        text = MODES[name] if settings.developer_instructions is None else settings.developer_instructions
        return Collaboration(name, text), settings.model or model, settings.reasoning_effort
    before = now.before
    if name == "plan":
        made = Collaboration(name, MODES[name], before or (effort,))
        return made, model, config.plan_mode_reasoning_effort or _PLAN_EFFORT
    return Collaboration(name, MODES[name]), model, effort if before is None else before[0]


def recorded(now: Collaboration, *, model: str, effort: str | None) -> CollaborationMode:
    """The mode as a turn's line of the rollout has it."""
    return CollaborationMode(now.mode, CollaborationSettings(model, effort, now.instructions or None))
