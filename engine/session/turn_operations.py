"""What submissions ask of the turns: a turn, a command of the user's own, a compaction, a rollback (session.md 3.1).

Imported with the first of them: nothing here is needed to start a session.
"""

from __future__ import annotations

import functools
from typing import TYPE_CHECKING

from engine.errors import InvalidRequest
from engine.protocol.events import ErrorEvent, Warning
from engine.session.rollback import roll_back
from engine.session.submissions import CANT_STEER_COMPACTION, Compact, Rollback, RunShell, Submission, UserTurn
from engine.session.turn import TurnRun
from engine.session.turn_setup import make_turn
from engine.session.user_shell import run_user_shell

if TYPE_CHECKING:
    from engine.session.core import SessionCore

__all__ = ["perform"]


async def perform(core: SessionCore, submission: Submission, op: UserTurn | RunShell | Compact | Rollback) -> None:
    """Does what is asked and answers the submission. Raises `EngineError` where it can't be done."""
    match op:
        case UserTurn():
            submission.reply.answer(await _user_turn(core, submission, op))
        case RunShell(command):
            submission.reply.answer(_user_shell(core, submission, command))
        case Compact():
            submission.reply.answer(await _compact(core, submission))
        case Rollback(turns):
            await roll_back(core, submission.id, turns)
            core.hub.then(functools.partial(submission.reply.answer, None))


async def _user_turn(core: SessionCore, submission: Submission, op: UserTurn) -> TurnRun:
    # Settings are committed even where the input ends up steering the active turn.
    core.apply(submission, op.update)
    model_info = core.model_info()
    if model_info.is_fallback:
        core.hub.emit(
            submission.id,
            Warning(
                f"Model metadata for `{model_info.slug}` not found. Defaulting to fallback metadata; "
                "this can degrade performance and cause issues."
            ),
        )
    if core.active is not None and core.active.kind == "compact":
        core.hub.emit(
            submission.id,
            ErrorEvent(CANT_STEER_COMPACTION, {"active_turn_not_steerable": {"turn_kind": "compact"}}),
        )
        raise InvalidRequest(CANT_STEER_COMPACTION)
    if core.active is not None and core.active.kind == "regular":
        core.active.pending.append(op.input)
        return core.active
    await core.abort("replaced")
    if submission.reply.arrived():
        raise InvalidRequest("the request was withdrawn")
    environments = op.update.environments if op.update is not None else None
    turn = make_turn(core, submission, op.input, model_info, environments=environments)
    turn.output_schema = op.update.output_schema if op.update is not None else None
    _start(core, turn, submission)
    return turn


async def _compact(core: SessionCore, submission: Submission) -> TurnRun:
    await core.abort("replaced")
    if submission.reply.arrived():
        raise InvalidRequest("the request was withdrawn")
    turn = make_turn(core, submission, (), core.model_info(), kind="compact")
    _start(core, turn, submission)
    return turn


def _user_shell(core: SessionCore, submission: Submission, command: str) -> TurnRun:
    model_info = core.model_info()
    host = core.active
    turn = make_turn(core, submission, (), model_info, kind="user_shell", host=host)
    if host is None:
        core.active = turn
    else:
        core.beside.add(turn)
    core.ward.start_soon("user shell", run_user_shell, turn, command, host, context=submission.context)
    return turn


def _start(core: SessionCore, turn: TurnRun, submission: Submission) -> None:
    core.hub.stop_replay()
    core.active = turn
    core.ward.start_soon(f"turn {turn.id}", turn.run, context=submission.context)
