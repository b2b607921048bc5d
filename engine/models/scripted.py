"""The scripted model: a provider inside the package that answers from a script, on the event path of a server.

What a script does in process it does over the network too (`engine.models.serving`): HTTP errors are mapped and retried
by the same code, events are decoded by the same decoder. The format is described in docs/scripted-model.md.
"""

from __future__ import annotations

from collections.abc import AsyncIterator, Iterator, Sequence
from contextlib import asynccontextmanager
from os import PathLike
from typing import TYPE_CHECKING, Final, Literal

import trio

from engine.models.base import ModelRequest, ResponseStream
from engine.models.failures import BODY_CUT, Disconnected, IdleTimeout, http_failure
from engine.models.retries import Backoff, HttpRetry, with_retries
from engine.models.script_files import load_script, parse_script
from engine.models.script_player import Action, Emit, End, Hold, Pause, Played, ScriptPlayer, Text
from engine.models.script_requests import ScriptedRequest
from engine.models.scripts import Script, ScriptLike
from engine.models.scripts import script as make_script
from engine.models.sse import SseParser, event_values, sse_bytes
from engine.protocol.wire import JsonObject

if TYPE_CHECKING:
    from engine.config.providers import ProviderInfo

__all__ = ["ScriptedModel", "scripted_provider"]

URL: Final = "scripted:/responses"  # what error texts show in place of a server


def scripted_provider(*, request_max_retries: int = 0, stream_max_retries: int = 5) -> ProviderInfo:
    """The provider of a `ScriptedModel` made without one: the HTTP layer retries nothing, a script counts requests."""
    from engine.config.providers import ProviderInfo

    return ProviderInfo(
        id="scripted",
        name="scripted",
        request_max_retries=request_max_retries,
        stream_max_retries=stream_max_retries,
    )


class ScriptedModel:
    """A `Model` that answers from a script. One object may serve many sessions: each thread walks by itself.

    `ids` fixes the part of made ids that is random otherwise, `record` bounds `requests`, `backoff` is for tests.
    """

    def __init__(
        self,
        script: ScriptLike,
        *,
        provider: ProviderInfo | None = None,
        ids: str | None = None,
        record: int = 256,
        backoff: Backoff | None = None,
    ) -> None:
        self.script = script if isinstance(script, Script) else make_script(*script)
        self.player = ScriptPlayer(self.script, ids=ids, record=record)
        self._provider = provider or scripted_provider()
        self._backoff = backoff or Backoff()
        self._idle = self._provider.stream_idle_timeout_ms / 1000
        self._gate = trio.lowlevel.ParkingLot()
        self._arrivals = trio.lowlevel.ParkingLot()

    @classmethod
    def from_file(cls, path: PathLike[str] | str, *, provider: ProviderInfo | None = None) -> ScriptedModel:
        """Reads a `.toml` or `.jsonl` script. Blocks; raises `ScriptError`."""
        return cls(load_script(path), provider=provider)

    @classmethod
    def from_text(
        cls, text: str, form: Literal["toml", "jsonl"] = "toml", *, provider: ProviderInfo | None = None
    ) -> ScriptedModel:
        """A script given as text. Raises `ScriptError`."""
        return cls(parse_script(text, form), provider=provider)

    @property
    def provider(self) -> ProviderInfo:
        """The provider whose limits sessions go by."""
        return self._provider

    @property
    def requests(self) -> Sequence[ScriptedRequest]:
        """The last requests, oldest first."""
        return self.player.requests

    @property
    def waiting(self) -> int:
        """How many responses are held by a `wait` step."""
        return len(self._gate)

    def release(self) -> None:
        """Lets all responses go on that a `wait` step holds now."""
        self._gate.unpark_all()

    async def until_waiting(self, count: int = 1) -> None:
        """Returns once at least `count` responses are held by a `wait` step."""
        while self.waiting < count:
            await self._arrivals.park()

    async def hold(self) -> None:
        """What a `wait` step does: returns after the next `release`."""
        self._arrivals.unpark_all()
        await self._gate.park()

    @asynccontextmanager
    async def stream(self, request: ModelRequest) -> AsyncIterator[ResponseStream]:
        """Answers from the script. Raises `ScriptMismatch`, `ScriptExhausted`, and what a server would cause."""
        played = await with_retries(lambda: self._play(request), self._provider.request_max_retries, self._backoff)
        yield ResponseStream(played.headers, _ScriptedEvents(self, played.actions, self._idle))

    async def _play(self, request: ModelRequest) -> Played:
        await trio.lowlevel.checkpoint()
        played = self.player.play(request.body, {name.lower(): value for name, value in request.headers.items()})
        if 200 <= played.status < 300:
            return played
        failure = http_failure(played.status, played.headers, played.body.decode(), URL)
        if played.status >= 500:
            raise HttpRetry(failure)
        raise failure


class _ScriptedEvents:
    """The actions of one response as raw events."""

    def __init__(self, model: ScriptedModel, actions: Iterator[Action], idle: float) -> None:
        self._model = model
        self._actions = actions
        self._idle = idle
        self._parser: SseParser | None = None

    async def receive(self) -> Sequence[JsonObject] | None:
        with trio.move_on_after(self._idle):
            while True:
                match next(self._actions, End()):
                    case Emit(events):
                        await trio.lowlevel.checkpoint()
                        return events if self._parser is None else event_values(self._parser.feed(sse_bytes(events)))
                    case Text(text):
                        # From here on the rest is read as text, because garbage may swallow what follows it.
                        self._parser = self._parser or SseParser()
                        await trio.lowlevel.checkpoint()
                        return event_values(self._parser.feed(text.encode()))
                    case Pause(seconds):
                        await trio.sleep(seconds)
                    case Hold():
                        await self._model.hold()
                    case End(dropped):
                        await trio.lowlevel.checkpoint()
                        if dropped:
                            raise Disconnected(BODY_CUT)
                        return None
        raise IdleTimeout()
