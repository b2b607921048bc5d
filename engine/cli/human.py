"""What a person sees of `engine exec` on stderr: header, streamed text, commands, diffs, usage (app_server.md 6.4)."""

from __future__ import annotations

import shlex
from collections.abc import Callable

import attrs

from engine.cli.jsonl import deprecation_text, stream_error_text
from engine.cli.outcome import TurnOutcome, affects_turn
from engine.cli.terminal import Palette, plain
from engine.protocol.events import (
    AgentMessageContentDelta,
    ContextCompacted,
    DeprecationNotice,
    DynamicToolCallRequest,
    DynamicToolCallResponse,
    ErrorEvent,
    Event,
    EventMsg,
    ExecCommandBegin,
    ExecCommandEnd,
    ItemCompleted,
    ModelReroute,
    PlanUpdate,
    StreamError,
    TerminalInteraction,
    TurnAborted,
    ViewImageToolCall,
    Warning,
)
from engine.protocol.settings import TokenUsage
from engine.protocol.turn_items import (
    AddChange,
    AgentMessageItem,
    DeleteChange,
    FileChange,
    FileChangeItem,
    PlanItem,
    ReasoningItem,
    UpdateChange,
    WebSearchItem,
    agent_text,
)
from engine.protocol.wire import JsonObject
from engine.records import define, frozen

__all__ = ["Header", "HumanOutput", "tokens_used"]

OUTPUT_LINES = 40  # of a command; the whole output is in the session file
RULE = "--------"
_PLAN_MARKS = {"completed": "✓", "in_progress": "→"}


@frozen
class Header:
    """What the header tells about the session."""

    version: str
    workdir: str
    model: str
    provider: str
    approval: str
    sandbox: str
    effort: str
    summaries: str
    session_id: str


def tokens_used(usage: TokenUsage) -> int:
    """The one number people get: input that was not cached, plus output."""
    return max(0, usage.input_tokens - usage.cached_input_tokens) + usage.output_tokens


@define(eq=False)
class HumanOutput:
    """Writes what happens as it happens. `write` gets text that ends anywhere and must show it at once."""

    write: Callable[[str], None]
    palette: Palette
    outcome: TurnOutcome = attrs.field(factory=TurnOutcome)
    show_reasoning: bool = True
    workdir: str | None = attrs.field(default=None, init=False)
    _at_line_start: bool = attrs.field(default=True, init=False)
    _streaming: str | None = attrs.field(default=None, init=False)
    _streamed: set[str] = attrs.field(factory=set, init=False)
    _streamed_last: bool = attrs.field(default=False, init=False)
    _shown_command: str | None = attrs.field(default=None, init=False)

    @property
    def ends_with_message(self) -> bool:
        """Whether the final message is the last thing that was said."""
        return self._streamed_last

    def header(self, header: Header) -> None:
        """The block of settings a run starts with."""
        self.workdir = header.workdir
        rows = (
            ("workdir", header.workdir),
            ("model", header.model),
            ("provider", header.provider),
            ("approval", header.approval),
            ("sandbox", header.sandbox),
            ("reasoning effort", header.effort),
            ("reasoning summaries", header.summaries),
            ("session id", header.session_id),
        )
        self._line(self.palette.bold(f"Session Engine v{header.version}"))
        self._line(RULE)
        for name, value in rows:
            self._line(f"{self.palette.bold(name + ':')} {plain(value)}")
        self._line(RULE)

    def prompt(self, text: str) -> None:
        """What the user asked."""
        self._label("user", self.palette.cyan)
        self._line(plain(text))

    def event(self, event: Event) -> None:
        """Shows one event; most have nothing to show."""
        msg = event.msg
        if isinstance(msg, Warning | DeprecationNotice):
            text = msg.message if isinstance(msg, Warning) else deprecation_text(msg)
            self._line(f"{self.palette.yellow('warning:')} {plain(text)}")
            return
        if not self.outcome.belongs(event):
            return
        self.outcome.observe(msg)
        self._turn_event(msg)

    def finish(self, rollout_path: str | None) -> None:
        """Usage, and where the session was recorded."""
        if self.outcome.usage is not None:
            self._label("tokens used", self.palette.magenta)
            self._line(f"{tokens_used(self.outcome.usage):,}")
        if rollout_path is not None:
            self._label("rollout", self.palette.magenta)
            self._line(rollout_path)

    def _turn_event(self, msg: EventMsg) -> None:
        match msg:
            case AgentMessageContentDelta(item_id=item_id, delta=delta):
                if self._streaming != item_id:
                    self._label("codex", self.palette.magenta)
                    self._streaming = item_id
                    self._streamed.add(item_id)
                self._put(plain(delta))
            case ItemCompleted(item=item):
                self._item(item)
            case ExecCommandBegin() if msg.source != "unified_exec_interaction":
                self._command_begin(msg)
            case ExecCommandEnd() if msg.source != "unified_exec_interaction":
                self._command_end(msg)
            case TerminalInteraction(process_id=process, stdin=stdin) if stdin:
                self._label("input", self.palette.magenta)
                self._line(f"to process {process}: {plain(stdin)!r}")
            case PlanUpdate():
                self._plan(msg)
            case ViewImageToolCall(path=path):
                self._label("image", self.palette.magenta)
                self._line(plain(path))
            case DynamicToolCallRequest(tool=tool, arguments=arguments):
                self._label("tool", self.palette.magenta)
                self._line(plain(f"{tool} {arguments}"))
            case DynamicToolCallResponse(tool=tool, success=success, error=error, duration=duration):
                verdict = self.palette.green("ok") if success else self.palette.red(plain(error or "failed"))
                self._line(f"{plain(tool)}: {verdict}{_in(duration)}")
            case ContextCompacted():
                self._line(self.palette.dim("context compacted"))
            case ModelReroute(from_model=old, to_model=new, reason=reason):
                self._line(f"{self.palette.yellow('model rerouted:')} {plain(f'{old} -> {new} ({reason})')}")
            case StreamError():
                self._streamed.clear()  # what was half said is said again
                self._line(f"{self.palette.yellow('warning:')} {plain(stream_error_text(msg))}")
            case ErrorEvent(message=message) if affects_turn(msg):
                self._line(f"{self.palette.red('ERROR:')} {plain(message)}")
            case TurnAborted(reason=reason):
                self._line(
                    self.palette.yellow("turn interrupted" if reason == "interrupted" else f"turn aborted: {reason}")
                )

    def _item(self, item: object) -> None:
        match item:
            case AgentMessageItem():
                if item.id not in self._streamed:
                    self._label("codex", self.palette.magenta)
                    self._line(plain(agent_text(item)))
                self._fresh_line()
                self._streaming = None
                self._streamed_last = True
            case ReasoningItem() if self.show_reasoning:
                text = "\n".join((*item.summary_text, *item.raw_content)).strip()
                if text:
                    self._label("thinking", self.palette.magenta)
                    self._line(self.palette.dim(plain(text)))
            case PlanItem(text=text):
                self._label("plan", self.palette.magenta)
                self._line(plain(text))
            case WebSearchItem(query=query):
                self._label("web search", self.palette.magenta)
                self._line(plain(query))
            case FileChangeItem():
                self._patch(item)

    def _command_begin(self, msg: ExecCommandBegin) -> None:
        self._label("exec", self.palette.magenta)
        where = "" if msg.cwd == self.workdir else f" in {plain(self._short(msg.cwd))}"
        self._line(f"{self.palette.bold(plain(_script(msg.command)))}{where}")
        self._shown_command = msg.call_id

    def _command_end(self, msg: ExecCommandEnd) -> None:
        if self._shown_command != msg.call_id:  # something else came between
            self._label("exec", self.palette.magenta)
            self._line(self.palette.bold(plain(_script(msg.command))))
        for line in _excerpt(plain(msg.aggregated_output)):
            self._line(self.palette.dim(line))
        colour = self.palette.green if msg.exit_code == 0 else self.palette.red
        verdict = "declined" if msg.status == "declined" else f"exit {msg.exit_code}"
        self._line(colour(verdict) + _in(msg.duration))
        self._shown_command = None

    def _plan(self, msg: PlanUpdate) -> None:
        self._label("plan", self.palette.magenta)
        if msg.explanation:
            self._line(self.palette.dim(plain(msg.explanation)))
        for step in msg.plan:
            self._line(f"{_PLAN_MARKS.get(step.status, '•')} {plain(step.step)}")

    def _patch(self, item: FileChangeItem) -> None:
        status = item.status or "completed"
        self._label("patch" if status == "completed" else f"patch {status}", self.palette.magenta)
        for path in sorted(item.changes):
            change = item.changes[path]
            self._line(self.palette.bold(plain(f"{_verb(change)} {self._short(path)}{self._moved(change)}")))
            for line in _excerpt(plain(_diff(change)), limit=10 * OUTPUT_LINES):
                self._line(self._diff_line(line))
        if status != "completed" and item.stderr:
            self._line(self.palette.red(plain(item.stderr.rstrip("\n"))))

    def _moved(self, change: FileChange) -> str:
        target = change.move_path if isinstance(change, UpdateChange) else None
        return f" -> {self._short(target)}" if target else ""

    def _short(self, path: str) -> str:
        """A path below the workdir, as seen from there."""
        return path.removeprefix(f"{self.workdir}/") if self.workdir else path

    def _diff_line(self, line: str) -> str:
        if line.startswith("+"):
            return self.palette.green(line)
        if line.startswith("-"):
            return self.palette.red(line)
        return self.palette.cyan(line) if line.startswith("@@") else line

    # --- lines ---------------------------------------------------------------------------------

    def _label(self, name: str, colour: Callable[[str], str]) -> None:
        self._streaming = None
        self._line(colour(name))

    def _line(self, text: str) -> None:
        self._fresh_line()
        self._put(text + "\n")

    def _fresh_line(self) -> None:
        if not self._at_line_start:
            self._put("\n")

    def _put(self, text: str) -> None:
        if text:
            self.write(text)
            self._at_line_start = text.endswith("\n")
            self._streamed_last = False


def _script(command: tuple[str, ...]) -> str:
    """The command as a person would type it: the script of a shell call, else the words."""
    if len(command) == 3 and command[1] in ("-c", "-lc"):
        return command[2]
    return shlex.join(command)


def _in(duration: JsonObject | None) -> str:
    if duration is None:
        return ""
    secs, nanos = duration.get("secs"), duration.get("nanos")
    if not isinstance(secs, int) or not isinstance(nanos, int):
        return ""
    ms = secs * 1000 + nanos / 1e6
    return f" in {ms:.0f} ms" if ms < 10_000 else f" in {ms / 1000:.1f} s"


def _excerpt(text: str, *, limit: int = OUTPUT_LINES) -> list[str]:
    lines = text.removesuffix("\n").split("\n") if text else []
    if len(lines) <= limit:
        return lines
    half = limit // 2
    return [*lines[:half], f"... {len(lines) - 2 * half} more lines ...", *lines[-half:]]


def _verb(change: FileChange) -> str:
    match change:
        case AddChange():
            return "A"
        case DeleteChange():
            return "D"
        case _:
            return "M"


def _diff(change: FileChange) -> str:
    match change:
        case UpdateChange(unified_diff=diff):
            return diff
        case AddChange(content=content) | DeleteChange(content=content):
            sign = "+" if isinstance(change, AddChange) else "-"
            return "".join(f"{sign}{line}\n" for line in content.removesuffix("\n").split("\n")) if content else ""
        case _:
            return ""
