"""Reads scripts of the scripted model: TOML, JSONL, and recorded `model` lines (docs/scripted-model.md).

Every mistake is a `ScriptError` that names the file, the place in it, and what was expected there.
"""

from __future__ import annotations

import tomllib
from collections.abc import Callable, Mapping
from os import PathLike
from pathlib import Path
from typing import Final, Literal

import attrs

from engine.errors import ProtocolError, ScriptError
from engine.models.script_requests import check_templates
from engine.models.script_tables import Table
from engine.models.scripts import (
    DEFAULT_CHUNK,
    CallFunction,
    CallTool,
    Cut,
    Delay,
    Expect,
    Failed,
    Garbage,
    HttpAnswer,
    Incomplete,
    Patch,
    RawEvent,
    Reason,
    Say,
    Script,
    ScriptedResponse,
    Shell,
    Step,
    Usage,
    Wait,
    When,
)
from engine.protocol.codec import json_value
from engine.protocol.wire import JsonObject
from engine.records import frozen

__all__ = ["load_script", "parse_script"]


def load_script(path: PathLike[str] | str) -> Script:
    """The script in a file: JSON lines if it ends in `.jsonl` or `.json`, else TOML. Blocks; raises `ScriptError`."""
    file = Path(path)
    try:
        text = file.read_text(encoding="utf-8")
    except OSError as exc:
        raise ScriptError(f"{file}: the script can't be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise ScriptError(f"{file}: the script is not UTF-8: {exc}") from exc
    form: Literal["toml", "jsonl"] = "jsonl" if file.suffix in (".jsonl", ".json") else "toml"
    return parse_script(text, form, source=str(file))


def parse_script(text: str, form: Literal["toml", "jsonl"] = "toml", *, source: str = "script") -> Script:
    """The script in `text`. `source` is what errors call it. Raises `ScriptError`."""
    parsed = _from_toml(text, source) if form == "toml" else _from_jsonl(text, source)
    if not parsed.responses:
        raise ScriptError(f"{source}: the script has no responses")
    return parsed


def _from_toml(text: str, source: str) -> Script:
    try:
        table = tomllib.loads(text)
    except tomllib.TOMLDecodeError as exc:
        raise ScriptError(f"{source}: {exc}") from exc
    return _script(Table(table, f"{source}: "))


def _from_jsonl(text: str, source: str) -> Script:
    options = Script(())
    defaults = _Defaults()
    found: list[ScriptedResponse] = []
    for number, line in enumerate(text.split("\n"), 1):
        if not line.strip():
            continue
        where = f"{source}:{number}: "
        try:
            value = json_value(line)
        except ProtocolError as exc:
            raise ScriptError(f"{where}{exc}") from exc
        if not isinstance(value, dict):
            raise ScriptError(f"{where}a line must be a JSON object")
        if value.get("dir", "model") != "model":
            continue  # a recorded transcript: what clients said is not the model's business
        if "script" in value:
            header = Table(Table(value, where).take("script", dict), f"{where}script.")
            options, defaults = _options(header)
            header.end()
            continue
        table = Table(value, where)
        table.drop("dir", "n")
        found.append(_response(table, defaults))
    return attrs.evolve(options, responses=tuple(found))


@frozen
class _Defaults:
    template: bool = False


def _options(table: Table) -> tuple[Script, _Defaults]:
    scope = table.get("scope", str) or "thread"
    if scope not in ("thread", "model"):
        raise table.fail('`scope` must be "thread" or "model"')
    usage = table.get("usage", dict)
    return (
        Script(
            (),
            name=table.get("name", str) or "script",
            scope="thread" if scope == "thread" else "model",
            usage=None if usage is None else _usage(Table(usage, f"{table.where}usage.")),
        ),
        _Defaults(template=bool(table.get("template", bool))),
    )


def _script(table: Table) -> Script:
    options, defaults = _options(table)
    found = [_response(one, defaults) for one in table.tables("responses")]
    for number, turn in enumerate(table.tables("turns"), 1):
        inner = turn.tables("responses") if "responses" in turn else [turn]
        for one in inner:
            made = _response(one, defaults)
            if made.when.user_turn is not None:
                raise one.fail("`when.user_turn` follows from the place in `turns`")
            found.append(attrs.evolve(made, when=attrs.evolve(made.when, user_turn=number)))
        if inner != [turn]:
            turn.end()
    table.end()
    return attrs.evolve(options, responses=tuple(found))


def _response(table: Table, defaults: _Defaults) -> ScriptedResponse:
    if "reply" in table:
        reply = Table(table.take("reply", dict), f"{table.where}reply.")
        made = _recorded(reply)
        reply.end()
        steps, headers, raw = made.steps, dict(made.headers), made.raw
    else:
        raw = False
        headers = table.strings("headers")
        steps = ()
    when, expect = _when(table), _expect(table)
    repeat = _repeat(table)
    end_turn = table.get("end_turn", bool)
    template = table.get("template", bool)
    usage = table.get("usage", dict)
    if not raw:
        steps += tuple(_steps(table))
    if usage is not None:
        steps = (_usage(Table(usage, f"{table.where}usage.")), *steps)
    table.end()
    if not steps and not raw:
        raise table.fail("a response needs a step")
    use_templates = defaults.template if template is None else template
    try:
        if use_templates:
            for step in steps:
                _check_templates(step)
        return ScriptedResponse(steps, when, expect, repeat, headers, end_turn, use_templates and not raw, raw)
    except ScriptError as exc:
        raise table.fail(str(exc)) from exc


def _steps(table: Table) -> list[Step]:
    found: list[Step] = []
    if any(kind in table for kind in _STEPS):
        found.append(_step(table))
    for one in table.tables("steps"):
        found.append(_step(one))
        one.end()
    return found


def _repeat(table: Table) -> int | None:
    if "repeat" not in table:
        return 1
    value = table.pop("repeat")
    if value is True:
        return None
    if type(value) is int and value >= 1:
        return value
    raise table.fail("`repeat` must be true or a number of at least 1")


def _when(table: Table) -> When:
    content = table.get("when", dict)
    if content is None:
        return When()
    inner = Table(content, f"{table.where}when.")
    made = When(
        user_turn=inner.count("user_turn", 1),
        step=inner.count("step", 1),
        user_text=inner.get("user_text", str),
        tool_output=inner.get("tool_output", str),
        model=inner.get("model", str),
    )
    inner.end()
    return made


def _expect(table: Table) -> Expect:
    content = table.get("expect", dict)
    if content is None:
        return Expect()
    inner = Table(content, f"{table.where}expect.")
    made = Expect(
        user_text=inner.get("user_text", str),
        tool_output=inner.get("tool_output", str),
        history=inner.texts("history"),
        absent=inner.texts("absent"),
        tools=inner.texts("tools"),
        model=inner.get("model", str),
    )
    inner.end()
    return made


def _usage(table: Table) -> Usage:
    made = Usage(
        input=table.count("input") or 0,
        cached=table.count("cached") or 0,
        output=table.count("output") or 0,
        reasoning=table.count("reasoning") or 0,
        total=table.count("total"),
    )
    table.end()
    return made


def _usage_step(table: Table) -> Step:
    return _usage(Table(table.take("usage", dict), f"{table.where}usage."))


def _recorded(reply: Table) -> ScriptedResponse:
    """A recorded reply: raw events (`"WAIT"` holds the stream), or a plain HTTP answer."""
    if "status" in reply:
        status = reply.take("status", int)
        body = reply.pop("json") if "json" in reply else reply.get("body", str) or ""
        return ScriptedResponse((HttpAnswer(status, body, reply.strings("headers")),), raw=True)
    steps: list[Step] = []
    for position, value in enumerate(reply.take("events", list)):
        if value == "WAIT":
            steps.append(Wait())
        elif isinstance(value, dict):
            steps.append(RawEvent(value))
        else:
            raise reply.fail(f'events[{position}] must be an event or "WAIT"')
    if reply.get("cut", bool):
        steps.append(Cut("drop"))
    return ScriptedResponse(tuple(steps), headers=reply.strings("headers"), raw=True)


def _step(table: Table) -> Step:
    kinds = [kind for kind in _STEPS if kind in table]
    if not kinds:
        raise table.fail(f"a step needs one of: {', '.join(_STEPS)}")
    if len(kinds) > 1:
        raise table.fail(f"one step can't be both `{kinds[0]}` and `{kinds[1]}`")
    return _STEPS[kinds[0]](table)


def _say(key: str, phase: str) -> Callable[[Table], Step]:
    def made(table: Table) -> Step:
        text = table.take(key, str)
        chosen = table.get("phase", str) if key == "text" else None
        return Say(text, chosen or phase, table.count("chunk", 1) or DEFAULT_CHUNK, table.number("interval") or 0.0)

    return made


def _reason(table: Table) -> Step:
    return Reason(
        table.texts("reasoning"),
        table.get("raw", str),
        table.get("encrypted", str),
        table.count("chunk", 1) or DEFAULT_CHUNK,
        table.number("interval") or 0.0,
    )


def _call(table: Table) -> Step:
    name = table.take("call", str)
    arguments = table.pop("arguments") if "arguments" in table else {}
    if not isinstance(arguments, dict | str):
        raise table.fail("`arguments` must be a table, or text to send as it is")
    return CallFunction(name, arguments, table.get("call_id", str), table.get("namespace", str))


def _custom(table: Table) -> Step:
    name = table.take("custom", str)
    return CallTool(name, table.take("input", str), table.get("call_id", str), table.count("chunk", 1) or 0)


def _shell(table: Table) -> Step:
    return Shell(table.take("shell", str), table.get("call_id", str))


def _patch(table: Table) -> Step:
    return Patch(table.take("patch", str), table.get("call_id", str))


def _delay(table: Table) -> Step:
    return Delay(table.number("delay") or 0.0)


def _wait(table: Table) -> Step:
    if not table.take("wait", bool):
        raise table.fail("`wait` can only be true")
    return Wait()


def _failed(table: Table) -> Step:
    value = table.pop("failed")
    if isinstance(value, str):
        return Failed(value, table.get("message", str) or "")
    if not isinstance(value, dict):
        raise table.fail("`failed` must be a code, or a table with `code` and `message`")
    inner = Table(value, f"{table.where}failed.")
    made = Failed(inner.get("code", str), inner.get("message", str) or "")
    inner.end()
    return made


def _incomplete(table: Table) -> Step:
    return Incomplete(table.take("incomplete", str))


def _cut(table: Table) -> Step:
    value = table.pop("cut")
    if value is True or value == "drop":
        return Cut("drop")
    if value == "end":
        return Cut("end")
    raise table.fail('`cut` must be true, "drop" or "end"')


def _garbage(table: Table) -> Step:
    return Garbage(table.take("garbage", str))


def _event(table: Table) -> Step:
    return RawEvent(table.take("event", dict))


def _error(table: Table) -> Step:
    inner = Table(table.take("error", dict), f"{table.where}error.")
    status = inner.take("status", int)
    if not 100 <= status <= 599:
        raise inner.fail("`status` must be an HTTP status")
    headers = inner.strings("headers")
    if "body" in inner:
        body = inner.pop("body")
    else:
        error: JsonObject = {"message": inner.get("message", str) or "scripted error"}
        for key in ("type", "code", "param", "plan_type"):
            if (value := inner.get(key, str)) is not None:
                error[key] = value
        if (resets_at := inner.get("resets_at", int)) is not None:
            error["resets_at"] = resets_at
        body = {"error": error}
    inner.end()
    return HttpAnswer(status, body, headers)


_STEPS: Final[Mapping[str, Callable[[Table], Step]]] = {
    "text": _say("text", "final_answer"),
    "commentary": _say("commentary", "commentary"),
    "reasoning": _reason,
    "call": _call,
    "custom": _custom,
    "shell": _shell,
    "patch": _patch,
    "usage": _usage_step,
    "delay": _delay,
    "wait": _wait,
    "error": _error,
    "failed": _failed,
    "incomplete": _incomplete,
    "cut": _cut,
    "garbage": _garbage,
    "event": _event,
}


def _check_templates(step: Step) -> None:
    for value in attrs.asdict(step, recurse=False).values():
        check_templates(value)
