"""When a catalogue is read from the cache, when it is asked for, and what survives a failure."""

from __future__ import annotations

import json
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio
import trio.testing
from hypothesis import given
from hypothesis import strategies as st

from engine.errors import ModelError
from engine.models.cache import CachedModels, ModelsCache
from engine.models.catalogue import BUNDLED, default_model, find_model
from engine.models.endpoint import Access, ToldModels
from engine.models.manager import ModelsManager, RefreshStrategy

NOW = 1_800_000_000.0
LISTED = {"slug": "told", "visibility": "list", "priority": 0}


@attrs.define
class Endpoint:
    """A server in memory; `requests` counts."""

    online: bool = True
    chatgpt: bool = True
    models: list[object] = attrs.field(factory=lambda: [LISTED])
    etag: str | None = "e1"
    error: Exception | None = None
    requests: int = 0
    gate: trio.Event | None = None

    async def access(self) -> Access:
        await trio.lowlevel.checkpoint()
        return Access(self.online, self.chatgpt)

    async def fetch(self) -> ToldModels:
        self.requests += 1
        await trio.lowlevel.checkpoint()
        if self.gate is not None:
            await self.gate.wait()
        if self.error is not None:
            raise self.error
        return ToldModels(self.models, self.etag)


@attrs.define
class Clock:
    now: float = NOW

    def __call__(self) -> float:
        return self.now


@asynccontextmanager
async def managed(
    home: Path, endpoint: Endpoint, clock: Clock | None = None, provider: str = "openai"
) -> AsyncIterator[ModelsManager]:
    async with trio.open_nursery() as nursery:
        yield ModelsManager(provider, endpoint, ModelsCache(home), nursery, version="1.2.3", now=clock or Clock())


def stored(home: Path) -> dict[str, Any]:
    found: dict[str, Any] = json.loads((home / "models_cache.json").read_text())
    return found


def store(home: Path, age: float = 0.0, **fields: Any) -> None:
    cached = CachedModels(**{"fetched_at": NOW - age, "models": [LISTED], "client_version": "1.2.3", **fields})
    ModelsCache(home).save(cached)


def slugs(manager: ModelsManager) -> list[str]:
    return [model.slug for model in manager.catalogue]


async def test_without_a_cache_offline_is_the_built_in_catalogue(tmp_path: Path) -> None:
    endpoint = Endpoint()
    async with managed(tmp_path, endpoint) as manager:
        assert await manager.list("offline") == BUNDLED
    assert endpoint.requests == 0
    assert not list(tmp_path.iterdir())


async def test_if_uncached_asks_once_in_five_minutes(tmp_path: Path) -> None:
    endpoint, clock = Endpoint(), Clock()
    async with managed(tmp_path, endpoint, clock) as manager:
        for _ in range(2):
            await manager.list("online_if_uncached")
        assert (endpoint.requests, slugs(manager)) == (1, ["told"])
        clock.now += 300
        await manager.list()
        assert endpoint.requests == 1
        clock.now += 1
        await manager.list()
        assert endpoint.requests == 2


async def test_online_always_asks(tmp_path: Path) -> None:
    endpoint = Endpoint()
    async with managed(tmp_path, endpoint) as manager:
        for _ in range(2):
            await manager.list("online")
    assert endpoint.requests == 2


async def test_what_was_told_is_kept_for_the_next_process(tmp_path: Path) -> None:
    async with managed(tmp_path, Endpoint()) as manager:
        await manager.list()
    told = datetime.fromtimestamp(NOW, UTC).isoformat().replace("+00:00", "Z")
    assert stored(tmp_path) == {
        "fetched_at": told,
        "etag": "e1",
        "client_version": "1.2.3",
        "provider": "openai",
        "models": [LISTED],
    }
    second = Endpoint()
    async with managed(tmp_path, second) as manager:
        assert manager.catalogue == BUNDLED  # nothing is read before somebody asks
        await manager.prepare()
        assert slugs(manager) == ["told"]
    assert second.requests == 0


@pytest.mark.parametrize(
    ("age", "fields", "counts"),
    [
        (300, {}, True),
        (301, {}, False),
        (-5, {}, False),
        (0, {"client_version": "1.2.4"}, False),
        (0, {"client_version": None}, False),
        (0, {"provider": "openai"}, True),
        (0, {"provider": "another"}, False),
    ],
)
async def test_which_caches_count(tmp_path: Path, age: float, fields: dict[str, Any], counts: bool) -> None:
    store(tmp_path, age, **fields)
    endpoint = Endpoint(models=[{**LISTED, "slug": "asked"}])
    async with managed(tmp_path, endpoint) as manager:
        await manager.list()
        assert slugs(manager) == (["told"] if counts else ["asked"])
    assert endpoint.requests == (0 if counts else 1)


DAMAGED = ["", "{", "[]", "{}", '{"fetched_at": 5, "models": []}', '{"fetched_at": "x"}', "\xff"]


@pytest.mark.parametrize("text", DAMAGED)
async def test_a_damaged_cache_is_no_cache(tmp_path: Path, text: str) -> None:
    (tmp_path / "models_cache.json").write_bytes(text.encode("latin-1"))
    endpoint = Endpoint()
    async with managed(tmp_path, endpoint) as manager:
        await manager.list()
        assert slugs(manager) == ["told"]
    assert stored(tmp_path)["models"] == [LISTED]


@given(st.binary(max_size=200))
def test_no_file_is_an_error(content: bytes) -> None:
    import tempfile

    with tempfile.TemporaryDirectory() as home:
        (Path(home) / "models_cache.json").write_bytes(content)
        found = ModelsCache(Path(home)).load()
    assert found is None or isinstance(found.models, list)


async def test_a_key_never_asks_but_reads_the_cache(tmp_path: Path) -> None:
    store(tmp_path)
    endpoint = Endpoint(online=False, chatgpt=False)
    async with managed(tmp_path, endpoint) as manager:
        strategies: tuple[RefreshStrategy, ...] = ("online", "online_if_uncached", "offline")
        for strategy in strategies:
            await manager.list(strategy)
        assert slugs(manager) == [*(model.slug for model in BUNDLED), "told"]  # merged: the server serves others too
    assert endpoint.requests == 0


async def test_a_server_that_fails_changes_nothing(tmp_path: Path) -> None:
    endpoint = Endpoint()
    async with managed(tmp_path, endpoint) as manager:
        await manager.list()
        endpoint.error = ModelError("no")
        await manager.list("online")
        assert slugs(manager) == ["told"]
    assert endpoint.requests == 2


async def test_a_home_that_cannot_be_written_is_no_error(tmp_path: Path) -> None:
    endpoint = Endpoint()
    async with managed(tmp_path / "nothing", endpoint) as manager:
        await manager.list()
        await manager.list()
        assert slugs(manager) == ["told"]
    assert endpoint.requests == 1


async def test_the_same_tag_only_makes_it_newer(tmp_path: Path) -> None:
    endpoint, clock = Endpoint(), Clock()
    async with managed(tmp_path, endpoint, clock) as manager:
        await manager.list()
        before = stored(tmp_path)["fetched_at"]
        clock.now += 10
        manager.note_etag("e1")
        await trio.testing.wait_all_tasks_blocked()
        assert stored(tmp_path)["fetched_at"] == before  # not at each response
        clock.now += 200
        manager.note_etag("e1")
        clock.now += 250
        await manager.list()
    assert endpoint.requests == 1
    assert stored(tmp_path)["fetched_at"] == datetime.fromtimestamp(NOW + 210, UTC).isoformat().replace("+00:00", "Z")


async def test_another_tag_asks_once_in_the_background(tmp_path: Path) -> None:
    endpoint, clock = Endpoint(), Clock()
    async with managed(tmp_path, endpoint, clock) as manager:
        await manager.list()
        endpoint.models, endpoint.etag, endpoint.gate = [{**LISTED, "slug": "newer"}], "e2", trio.Event()
        for _ in range(3):
            manager.note_etag("e2")
        await trio.testing.wait_all_tasks_blocked()
        assert slugs(manager) == ["told"]
        endpoint.gate.set()
    assert (endpoint.requests, slugs(manager)) == (2, ["newer"])


async def test_a_tag_whose_catalogue_did_not_come_is_tried_again_later(tmp_path: Path) -> None:
    endpoint, clock = Endpoint(error=ModelError("no")), Clock()
    async with managed(tmp_path, endpoint, clock) as manager:
        for wait, requests in ((0, 1), (59, 1), (1, 2)):
            clock.now += wait
            manager.note_etag("e2")
            await trio.testing.wait_all_tasks_blocked()
            assert endpoint.requests == requests


async def test_prepare_works_once(tmp_path: Path) -> None:
    endpoint = Endpoint(error=ModelError("no"))
    async with managed(tmp_path, endpoint) as manager:
        await manager.prepare()
        await manager.prepare()
    assert endpoint.requests == 1


async def test_a_prepare_that_was_cancelled_is_left_to_the_next(tmp_path: Path) -> None:
    endpoint = Endpoint()
    async with managed(tmp_path, endpoint) as manager:
        with trio.CancelScope() as session:
            session.cancel()
            await manager.prepare()
        assert session.cancelled_caught
        assert endpoint.requests == 0
        await manager.prepare()
        assert slugs(manager) == ["told"]


def test_a_new_catalogue_decides_about_the_default(tmp_path: Path) -> None:
    from engine.config.loading import load_config
    from engine.models.entries import applied, model_entries

    catalogue = applied(model_entries([LISTED]), chatgpt=True)
    assert default_model(catalogue).slug == "told"
    config = load_config(tmp_path, cwd=tmp_path, env={})
    assert find_model(None, config, catalogue).slug == "told"
    assert find_model("unknown", config, catalogue).slug == "unknown"
