"""The catalogue of one provider: built in, as its server told it, and refreshed in the background (config.md 8,
extensibility.md 8).

Nothing here is on the path of a start: `catalogue` is what is known now. A refresh that fails leaves it as it is.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Awaitable, Callable
from typing import Final, Literal, final

import attrs
import trio

from engine.errors import EngineError
from engine.models.cache import CachedModels, ModelsCache
from engine.models.catalogue import BUNDLED, ModelInfo
from engine.models.endpoint import Access, ModelsEndpoint
from engine.models.entries import applied, model_entries
from engine.telemetry.handle import current

__all__ = ["ModelsManager", "RefreshStrategy"]

logger = logging.getLogger("engine")

RefreshStrategy = Literal["online", "offline", "online_if_uncached"]
AT_MOST_EVERY: Final = 60.0  # seconds between rewrites that only renew the file, and between requests for one tag


@final
class ModelsManager:
    """Serves all sessions that use the provider. `nursery` outlives them; `now` gives Unix seconds."""

    def __init__(
        self,
        provider_id: str,
        endpoint: ModelsEndpoint,
        cache: ModelsCache,
        nursery: trio.Nursery,
        *,
        version: str,
        now: Callable[[], float] = time.time,
    ) -> None:
        self._provider_id = provider_id
        self._endpoint = endpoint
        self._cache = cache
        self._nursery = nursery
        self._version = version
        self._now = now
        self._refreshing = trio.Lock()
        self._known: CachedModels | None = None
        self._stored_at = 0.0
        self._catalogue = BUNDLED
        self._chatgpt = False
        self._applied_for: Access | None = None
        self._prepared = False
        self._asked = ("", 0.0)  # the tag that was asked for last, and when

    @property
    def catalogue(self) -> tuple[ModelInfo, ...]:
        """The models as far as they are known without waiting."""
        return self._catalogue

    @property
    def chatgpt(self) -> bool:
        """Whether the identity was a ChatGPT login when it was last looked at."""
        return self._chatgpt

    @property
    def prepared(self) -> bool:
        """Whether `prepare` was called; a session that starts then has nothing left to do."""
        return self._prepared

    async def prepare(self) -> None:
        """For the background of a session: the first call reads the cache, and asks where that is too old.

        Cancelled: the next session's call is the first.
        """
        if self._prepared:
            await trio.lowlevel.checkpoint()
            return
        self._prepared = True
        try:
            await self.list("online_if_uncached")
        except BaseException:  # a cancellation may come in a group
            self._prepared = False
            raise

    async def list(self, strategy: RefreshStrategy = "online_if_uncached") -> tuple[ModelInfo, ...]:
        """The catalogue, brought up to date as `strategy` says: ask (`online`), only read the cache (`offline`), or ask
        where the cache is older than five minutes.

        Asks only with a ChatGPT login, or with tokens that a command prints. A failure is a line in the log.
        """
        access = await self._endpoint.access()
        self._chatgpt = access.chatgpt
        async with self._refreshing:
            asks = access.online and strategy != "offline"
            if strategy != "online" or not asks:
                asks = not await self._from_cache(access) and asks
            if asks:
                await self._ask(access)
        return self._catalogue

    def note_etag(self, etag: str) -> None:
        """A response says which catalogue its server has: another one is fetched in the background."""
        known = self._known
        if known is not None and known.etag == etag:
            self._known = attrs.evolve(known, fetched_at=self._now())
            if self._now() - self._stored_at >= AT_MOST_EVERY:
                self._stored_at = self._now()
                self._nursery.start_soon(self._in_background, self._store, name="model catalogue")
        elif self._asked[0] != etag or self._now() - self._asked[1] >= AT_MOST_EVERY:
            self._asked = (etag, self._now())
            self._nursery.start_soon(self._in_background, self._refresh, name="model catalogue")

    async def _refresh(self) -> None:
        await self.list("online")

    async def _in_background(self, work: Callable[[], Awaitable[None]]) -> None:
        try:
            await work()
        except Exception:  # nothing of this may end the engine
            logger.exception("the model catalogue of %s could not be refreshed", self._provider_id)

    async def _from_cache(self, access: Access) -> bool:
        """Whether what is known, here or in the file, is new enough; then it is in force."""
        known = self._known
        if known is None or not known.fresh(self._now()):
            began = trio.current_time()
            try:
                known = await trio.to_thread.run_sync(self._cache.load, abandon_on_cancel=True)
            except OSError as exc:
                logger.info("%s can't be read: %s", self._cache.path, exc.strerror)
                return False
            took = int((trio.current_time() - began) * 1000)
            current().measure("codex.remote_models.load_cache.duration_ms", took)
            if known is None or not known.fresh(self._now()) or not self._is_ours(known):
                return False
            self._stored_at = known.fetched_at
        self._adopt(known, access)
        return True

    def _is_ours(self, cached: CachedModels) -> bool:
        told_us = cached.provider in (None, self._provider_id)
        return told_us and cached.client_version == self._version

    async def _ask(self, access: Access) -> None:
        try:
            told = await self._endpoint.fetch()
        except EngineError as exc:
            logger.warning("the model catalogue of %s stays as it is: %s", self._provider_id, exc)
            return
        known = CachedModels(
            fetched_at=self._now(),
            models=told.models,
            etag=told.etag,
            client_version=self._version,
            provider=self._provider_id,
        )
        self._adopt(known, access)
        self._stored_at = known.fetched_at
        with trio.CancelScope(shield=True):  # one short write, or nobody would ask and store again
            await self._store()

    def _adopt(self, known: CachedModels, access: Access) -> None:
        before = None if self._known is None else self._known.models
        if before != known.models or self._applied_for != access:
            self._catalogue = applied(model_entries(known.models), chatgpt=access.chatgpt)
        self._known, self._applied_for = known, access

    async def _store(self) -> None:
        known = self._known
        if known is None:
            return
        try:
            await trio.to_thread.run_sync(self._cache.save, known)
        except OSError as exc:
            logger.info("%s can't be written: %s", self._cache.path, exc.strerror)
