"""What a script of the scripted model is made of, and short builders for tests (docs/scripted-model.md).

A script is a list of responses, a response a list of steps. Files are read by `engine.models.script_files`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from typing import TYPE_CHECKING, Literal, cast

import attrs

from engine.errors import ScriptError
from engine.protocol.wire import JsonObject
from engine.records import frozen

if TYPE_CHECKING:
    from engine.models.script_requests import ScriptedRequest

__all__ = [
    "CallFunction",
    "CallTool",
    "Cut",
    "Delay",
    "Expect",
    "Failed",
    "Garbage",
    "HttpAnswer",
    "Incomplete",
    "Patch",
    "RawEvent",
    "Reason",
    "Say",
    "Script",
    "ScriptLike",
    "ScriptedResponse",
    "Shell",
    "Step",
    "Usage",
    "Wait",
    "When",
    "call",
    "custom",
    "cut",
    "delay",
    "event",
    "failed",
    "http_error",
    "patch",
    "reply",
    "response",
    "say",
    "script",
    "shell",
    "think",
    "usage",
    "wait",
]

Phase = Literal["commentary", "final_answer"]
DEFAULT_CHUNK = 32  # characters of a delta


@frozen
class Say:
    """An assistant message, streamed in deltas of `chunk` characters, `interval` seconds apart."""

    text: str
    phase: str | None = "final_answer"
    chunk: int = DEFAULT_CHUNK
    interval: float = 0.0


@frozen
class Reason:
    """A reasoning item: parts of a summary, maybe raw text, maybe an opaque encrypted form."""

    summary: tuple[str, ...] = ()
    raw: str | None = None
    encrypted: str | None = None
    chunk: int = DEFAULT_CHUNK
    interval: float = 0.0


@frozen
class CallFunction:
    """A call of a function tool. `arguments`: a table, or text that is sent as it is (also when it is no JSON)."""

    name: str
    arguments: Mapping[str, object] | str = attrs.field(factory=dict)
    call_id: str | None = None
    namespace: str | None = None


@frozen
class CallTool:
    """A call of a freeform tool; the input is streamed too when `chunk` is given."""

    name: str
    input: str
    call_id: str | None = None
    chunk: int = 0


@frozen
class Shell:
    """A shell command, through `exec_command` or `shell_command`, whichever the request offers."""

    command: str
    call_id: str | None = None


@frozen
class Patch:
    """A patch, through the freeform `apply_patch` if the request offers it, else through the shell."""

    text: str
    call_id: str | None = None


@frozen
class Usage:
    """Token usage of the response; the total is input + output unless given."""

    input: int = 0
    cached: int = 0
    output: int = 0
    reasoning: int = 0
    total: int | None = None


@frozen
class Delay:
    """A pause of `seconds`."""

    seconds: float


@frozen
class Wait:
    """Holds the response until `ScriptedModel.release()`, or until the client goes away."""


@frozen
class Failed:
    """`response.failed`, told when the stream closes. Ends the response."""

    code: str | None = None
    message: str = ""


@frozen
class Incomplete:
    """`response.incomplete`. Ends the response."""

    reason: str = "max_output_tokens"


@frozen
class Cut:
    """Ends without `response.completed`: `end` ends the body in good order, `drop` breaks the connection."""

    how: Literal["end", "drop"] = "drop"


@frozen
class Garbage:
    """Text put into the event stream as it is."""

    text: str


@frozen
class RawEvent:
    """One event as the server would send it."""

    event: JsonObject


@frozen
class HttpAnswer:
    """A plain HTTP answer instead of a stream; the only step of its response. `body`: text, or a JSON value."""

    status: int
    body: object = ""
    headers: Mapping[str, str] = attrs.field(factory=dict)


Step = (
    Say
    | Reason
    | CallFunction
    | CallTool
    | Shell
    | Patch
    | Usage
    | Delay
    | Wait
    | Failed
    | Incomplete
    | Cut
    | Garbage
    | RawEvent
    | HttpAnswer
)


@frozen
class When:
    """Which requests a response is for; what is absent matches everything. Texts match when they are contained."""

    user_turn: int | None = None  # user messages in the request, this one included: 1 in the first turn
    step: int | None = None  # requests of this turn, by the model's items since the user message: 1 for the first
    user_text: str | None = None
    tool_output: str | None = None
    model: str | None = None


@frozen
class Expect:
    """What must hold for the request that got a response; otherwise the answer is a `ScriptMismatch`."""

    user_text: str | None = None  # contained in the last user message
    tool_output: str | None = None  # contained in the last tool output
    history: tuple[str, ...] = ()  # each contained in the input, anywhere
    absent: tuple[str, ...] = ()  # each contained nowhere in the input
    tools: tuple[str, ...] = ()  # each offered
    model: str | None = None


@frozen
class ScriptedResponse:
    """One response. `repeat`: how many requests of a thread it answers, `None` for any number.

    `raw`: the steps are the whole stream; nothing is added before or after them. `template`: `${...}` in texts is
    filled in from the request.
    """

    steps: tuple[Step, ...]
    when: When = When()
    expect: Expect = Expect()
    repeat: int | None = 1
    headers: Mapping[str, str] = attrs.field(factory=dict)
    end_turn: bool | None = None
    template: bool = False
    raw: bool = False

    def __attrs_post_init__(self) -> None:
        if len(self.steps) > 1 and any(isinstance(step, HttpAnswer) for step in self.steps):
            raise ScriptError("an HTTP answer is the only step of its response")
        for step in self.steps[:-1]:
            if isinstance(step, Failed | Incomplete | Cut) and not self.raw:
                raise ScriptError(f"nothing can follow the step `{type(step).__name__.lower()}`")


Responder = Callable[["ScriptedRequest"], ScriptedResponse | Step | str]


@frozen
class Script:
    """Responses in order. `scope`: whether each thread walks through them by itself, or all threads together.

    A function in place of a response is called with the request and answers any number of them.
    """

    responses: tuple[ScriptedResponse | Responder, ...]
    name: str = "script"
    scope: Literal["thread", "model"] = "thread"
    usage: Usage | None = None  # of responses that name none


ScriptLike = Script | Sequence[ScriptedResponse | Responder | Step | str | Sequence[Step]]


def as_response(value: ScriptedResponse | Step | str | Sequence[Step]) -> ScriptedResponse:
    """A response out of whatever is short to write: a text, a step, steps."""
    if isinstance(value, ScriptedResponse):
        return value
    if isinstance(value, str):
        return ScriptedResponse((Say(value),))
    if isinstance(value, list | tuple):
        return ScriptedResponse(tuple(cast("Sequence[Step]", value)))
    return ScriptedResponse((cast("Step", value),))


def script(
    *responses: ScriptedResponse | Responder | Step | str | Sequence[Step],
    name: str = "script",
    scope: Literal["thread", "model"] = "thread",
    usage: Usage | None = None,
) -> Script:
    """A script; a text is a response that says it, a step or a list of steps is a response."""
    return Script(
        tuple(one if callable(one) else as_response(one) for one in responses), name=name, scope=scope, usage=usage
    )


def response(
    *steps: Step,
    when: When = When(),
    expect: Expect = Expect(),
    repeat: int | None = 1,
    headers: Mapping[str, str] | None = None,
    end_turn: bool | None = None,
    template: bool = False,
) -> ScriptedResponse:
    """A response of several steps."""
    return ScriptedResponse(steps, when, expect, repeat, headers or {}, end_turn, template)


def reply(text: str, *, repeat: int | None = 1, template: bool = False) -> ScriptedResponse:
    """A response that is one final answer."""
    return ScriptedResponse((Say(text),), repeat=repeat, template=template)


def say(text: str, *, phase: Phase = "commentary", chunk: int = DEFAULT_CHUNK, interval: float = 0.0) -> Say:
    """A message; commentary unless told otherwise."""
    return Say(text, phase, chunk, interval)


def think(*summary: str, raw: str | None = None, encrypted: str | None = None) -> Reason:
    """A reasoning item with these summary parts."""
    return Reason(summary, raw, encrypted)


def call(name: str, /, **arguments: object) -> CallFunction:
    """A call of the function tool `name`."""
    return CallFunction(name, arguments)


def custom(name: str, input: str) -> CallTool:
    """A call of the freeform tool `name`."""
    return CallTool(name, input)


def shell(command: str) -> Shell:
    """A shell command through whichever tool is offered."""
    return Shell(command)


def patch(text: str) -> Patch:
    """A patch through whichever tool is offered."""
    return Patch(text)


def usage(input: int = 0, output: int = 0, *, cached: int = 0, reasoning: int = 0, total: int | None = None) -> Usage:
    """Token usage."""
    return Usage(input, cached, output, reasoning, total)


def delay(seconds: float) -> Delay:
    """A pause."""
    return Delay(seconds)


def wait() -> Wait:
    """Holds the response until `ScriptedModel.release()`."""
    return Wait()


def failed(code: str | None, message: str = "") -> Failed:
    """`response.failed`."""
    return Failed(code, message)


def cut(how: Literal["end", "drop"] = "drop") -> Cut:
    """The stream ends early."""
    return Cut(how)


def event(raw: Mapping[str, object]) -> RawEvent:
    """One raw event."""
    return RawEvent(dict(raw))


def http_error(
    status: int,
    message: str = "scripted error",
    *,
    code: str | None = None,
    kind: str | None = None,
    headers: Mapping[str, str] | None = None,
    **more: object,
) -> HttpAnswer:
    """An HTTP error with the body `{"error": {message, type, code, ...}}`."""
    error: JsonObject = {"message": message}
    if kind is not None:
        error["type"] = kind
    if code is not None:
        error["code"] = code
    return HttpAnswer(status, {"error": error | more}, headers or {})
