"""`models_cache.json`: the catalogue a server told last, kept for five minutes (config.md 8).

The file is shared with the other program, which knows all of it but `provider`. Everything here blocks.
"""

from __future__ import annotations

import contextlib
import json
import os
import tempfile
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import Final, final

import msgspec

from engine.records import frozen

__all__ = ["CachedModels", "ModelsCache"]

TTL: Final = 300.0  # seconds
NAME: Final = "models_cache.json"


@frozen(kw_only=True)
class CachedModels:
    """A catalogue as it was told. `fetched_at` is in Unix seconds; `models` are the entries as they came.

    `provider` is who told it; a file of the other program does not say.
    """

    fetched_at: float
    models: list[object]
    etag: str | None = None
    client_version: str | None = None
    provider: str | None = None

    def fresh(self, now: float) -> bool:
        """Whether it still counts; a time in the future does not."""
        return 0 <= now - self.fetched_at <= TTL


@final
class ModelsCache:
    """The file in a home."""

    def __init__(self, home: Path) -> None:
        self.path = home / NAME

    def load(self) -> CachedModels | None:
        """What the file holds, `None` where there is no file or none that can be used. Raises `OSError`."""
        try:
            text = self.path.read_bytes()
        except FileNotFoundError:
            return None
        try:
            content = msgspec.json.decode(text)
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
            return None
        return _cached(content) if isinstance(content, dict) else None

    def save(self, cached: CachedModels) -> None:
        """Replaces the file; a crash in between leaves the old one. Raises `OSError`."""
        told = datetime.fromtimestamp(cached.fetched_at, UTC).isoformat().replace("+00:00", "Z")
        content: dict[str, object] = {"fetched_at": told}
        for name in ("etag", "client_version", "provider"):
            if (value := getattr(cached, name)) is not None:
                content[name] = value
        content["models"] = cached.models
        handle, temporary = tempfile.mkstemp(dir=self.path.parent, prefix=".models-")
        try:
            with os.fdopen(handle, "w", encoding="utf-8") as file:
                json.dump(content, file, indent=2, ensure_ascii=False)
            os.replace(temporary, self.path)
        except BaseException:
            with contextlib.suppress(OSError):
                os.unlink(temporary)
            raise


def _cached(content: Mapping[str, object]) -> CachedModels | None:
    told, models = content.get("fetched_at"), content.get("models")
    if not isinstance(told, str) or not isinstance(models, list):
        return None
    try:
        fetched_at = datetime.fromisoformat(told)
        seconds = fetched_at.timestamp()
    except (ValueError, OverflowError):
        return None
    if fetched_at.tzinfo is None:
        return None  # of which clock?
    texts = {name: value if isinstance(value := content.get(name), str) else None for name in _TEXTS}
    return CachedModels(fetched_at=seconds, models=models, **texts)


_TEXTS: Final = ("etag", "client_version", "provider")
