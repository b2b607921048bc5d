"""docs/telemetry.md names all that the engine tells, and nothing that it does not."""

from __future__ import annotations

import re
from pathlib import Path

ROOT = Path(__file__).parents[2]
NAME = re.compile(r"codex\.[a-z0-9_]+(?:\.[a-z0-9_]+)*")


def told() -> set[str]:
    """The names of events and metrics in the source; those of durations by what they are durations of."""
    found: set[str] = set()
    for file in (ROOT / "engine").rglob("*.py"):
        for text in re.findall(r'"(codex\.[a-z0-9_.]+)"', file.read_text()):
            if text not in NO_TELEMETRY:
                found.add(_base(text))
    return found | {"codex.sse_event", "codex.websocket_event"}  # put together from their transport


NO_TELEMETRY = {"codex.rate_limits"}  # an event of model servers


def _base(name: str) -> str:
    return re.sub(r"[._]duration_ms$", "", name)


def documented() -> set[str]:
    text = (ROOT / "docs" / "telemetry.md").read_text().partition("## Left out")[0]
    return {_base(name) for name in NAME.findall(text)}


def test_the_page_and_the_source_agree() -> None:
    source = {name for name in told() if not name.startswith("codex.responses_api_")}
    page = {name for name in documented() if not name.startswith("codex.responses_api_")}
    assert source - page == set(), "told, but not on the page"
    assert page - source == set(), "on the page, but not told"
