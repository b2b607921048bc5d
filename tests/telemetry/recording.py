"""Telemetry that keeps what it is told as it is told, without the SDK."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager
from typing import Any

from engine.telemetry.handle import Attributes, Beginning, Telemetry


class Recording:
    """A handle that keeps everything."""

    enabled = True

    def __init__(self) -> None:
        self.counted: list[tuple[str, int, dict[str, Any]]] = []
        self.measured: list[tuple[str, float, dict[str, Any]]] = []
        self.logged: list[tuple[str, dict[str, Any]]] = []
        self.spans: list[tuple[str, dict[str, Any]]] = []

    def session(self, beginning: Beginning) -> Telemetry:
        return self

    def learn(self, facts: Attributes, private: Attributes | None = None) -> None:
        pass

    @contextmanager
    def span(self, name: str, attributes: Attributes | None = None) -> Iterator[None]:
        self.spans.append((name, dict(attributes or {})))
        yield

    def count(self, name: str, value: int = 1, tags: Attributes | None = None) -> None:
        self.counted.append((name, value, dict(tags or {})))

    def measure(self, name: str, value: float, tags: Attributes | None = None) -> None:
        self.measured.append((name, value, dict(tags or {})))

    def event(self, name: str, attributes: Attributes | None = None, texts: Mapping[str, str] | None = None) -> None:
        self.logged.append((name, {**(attributes or {}), **(texts or {})}))

    def prompt(self, text: str, counts: Attributes | None = None) -> None:
        self.logged.append(("codex.user_prompt", {"prompt": text, **(counts or {})}))

    def propagation(self) -> Mapping[str, str]:
        return {}

    def events(self, name: str) -> list[dict[str, Any]]:
        """What was logged under a name."""
        return [attributes for logged, attributes in self.logged if logged == name]

    def counts(self, name: str) -> list[dict[str, Any]]:
        """The tags of what was counted under a name, once for each time."""
        return [tags for counted, value, tags in self.counted for _ in range(value) if counted == name]

    def measures(self, name: str) -> list[dict[str, Any]]:
        """The tags of what was measured under a name."""
        return [tags for measured, _, tags in self.measured if measured == name]
