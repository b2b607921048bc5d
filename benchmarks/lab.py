"""What both sides get: homes with the same configuration, the same environment, one working directory, one mock."""

from __future__ import annotations

import os
import shutil
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import attrs

from benchmarks.mock_server import Mock, start_mock
from benchmarks.plan import Plan
from benchmarks.progress import Progress
from benchmarks.results import Results

__all__ = ["Bench", "open_bench"]

# Nothing that would talk to anybody but the mock, and no retry that would hide a failure.
CONFIG = """\
model = "mock-model"
model_provider = "mock"
approval_policy = "never"
sandbox_mode = "danger-full-access"
check_for_update_on_startup = false

[analytics]
enabled = false

[feedback]
enabled = false

[features]
plugins = false
apps = false
{features}
[model_providers.mock]
name = "mock"
base_url = "{base_url}"
wire_api = "responses"
request_max_retries = 0
stream_max_retries = 0
supports_websockets = false
"""
FOREIGN = ("CODEX_", "OPENAI_")  # beginnings of variables that change what either side does
NO_BYTECODE = "PYTHONDONTWRITEBYTECODE"  # else a checkout would be compiled anew by each cold start; an install is not
PROXIES = ("http_proxy", "https_proxy", "all_proxy")


@attrs.define
class Bench:
    """One run: where it happens, how much of it, against whom, and what came of it."""

    plan: Plan
    results: Results
    progress: Progress
    peer: Path | None
    mock: Mock
    folder: Path
    _homes: int = 0

    @property
    def workspace(self) -> Path:
        """The working directory of every session."""
        return self.folder / "workspace"

    def home(self, **features: bool) -> Path:
        """A fresh home that points at the mock, with features on or off."""
        self._homes += 1
        home = self.folder / f"home{self._homes}"
        home.mkdir()
        more = "".join(f"{name} = {str(on).lower()}\n" for name, on in features.items())
        (home / "config.toml").write_text(CONFIG.format(base_url=self.mock.base_url, features=more))
        return home

    def drop(self, home: Path) -> None:
        """Removes a home."""
        shutil.rmtree(home, ignore_errors=True)

    def environment(self, home: Path) -> dict[str, str]:
        """The environment of a process of either side.

        TMPDIR lies beside the homes, not above them: the real program treats a home below it specially.
        """
        kept = {name: value for name, value in os.environ.items() if not name.startswith(FOREIGN)}
        for name in (*PROXIES, *map(str.upper, PROXIES), NO_BYTECODE):
            kept.pop(name, None)
        return kept | {
            "CODEX_HOME": str(home),
            "HOME": str(home),
            "TMPDIR": str(self.folder / "tmp"),
            "NO_PROXY": "127.0.0.1",
            "NO_COLOR": "1",
            "RUST_LOG": "error",
            "CODEX_APP_SERVER_DISABLE_MANAGED_CONFIG": "1",
        }


@contextmanager
def open_bench(plan: Plan, progress: Progress, peer: Path | None, scratch: str | None) -> Iterator[Bench]:
    """A bench for the length of a block; its files and its mock go with it.

    The environment of this process becomes the one both sides get: this program runs in it too.
    """
    with (
        tempfile.TemporaryDirectory(prefix="bench-", dir=scratch, ignore_cleanup_errors=True) as name,
        start_mock() as mock,
    ):
        folder = Path(name).resolve()
        (folder / "workspace").mkdir()
        (folder / "tmp").mkdir()
        bench = Bench(plan, Results(plan.budgets), progress, peer, mock, folder)
        before = dict(os.environ)
        environment = bench.environment(bench.home())
        os.environ.clear()
        os.environ.update(environment)
        try:
            yield bench
        finally:
            os.environ.clear()
            os.environ.update(before)
