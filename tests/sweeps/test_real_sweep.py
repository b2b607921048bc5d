"""One pass with nothing made up but the model's words: a whole life of a session, cut off anywhere (CONCURRENCY 1.2).

A server that is asked over HTTP and WebSocket, a login shell with a profile, a git repository, processes, sockets.
"""

from __future__ import annotations

import json
import shutil
import subprocess
from collections import Counter
from collections.abc import Awaitable, Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import attrs
import pytest
import trio

import engine
from engine.models.scripted import ScriptedModel
from engine.models.scripts import When, reply, response, say, shell
from engine.models.serving import ScriptServer, serve_script
from engine.thread_store.verifying import verify_home
from tests.sweeps.leaks import Snapshot, differences, inside, outside
from tests.sweeps.places import PATIENCE_S
from tests.sweeps.points import interrupt
from tests.sweeps.services import EVERYTHING
from tests.sweeps.sweeping import Case, Places, sizes, sweep
from tests.sweeps.test_background_sweep import is_ctrl_c
from tests.sweeps.turns import check_rollout

COMMAND = "git log --format=%s; echo $FROM_PROFILE; sleep 1000 >/dev/null 2>&1 &"
BESIDE = ("trio.", "tests.", "engine.models.serving")  # tasks of the server and of the test

pytestmark = pytest.mark.skipif(
    shutil.which("git") is None or shutil.which("bash") is None, reason="needs git and bash"
)


@pytest.fixture(scope="module")
def repository(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("repository")
    git = ["git", "-C", str(folder), "-c", "user.name=a", "-c", "user.email=a@b.c"]
    for words in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "the first"]):
        subprocess.run([*git, *words], check=True)
    return folder


@pytest.fixture(autouse=True)
def _user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "user").mkdir()
    (tmp_path / "user" / ".profile").write_text("export FROM_PROFILE=profile\n")
    monkeypatch.setenv("HOME", str(tmp_path / "user"))
    monkeypatch.delenv("BASH_ENV", raising=False)


def model() -> ScriptedModel:
    """Looks at the repository, then answers."""
    return ScriptedModel(
        [
            response(shell(COMMAND), when=When(user_text="go", step=1), repeat=None),
            response(say("next it is", phase="final_answer"), when=When(user_text="next"), repeat=None),
            reply("done", repeat=None),
        ]
    )


@attrs.frozen
class World:
    """What a life takes place in."""

    home: Path
    repository: Path
    server: ScriptServer

    def open(self) -> AbstractAsyncContextManager[engine.Engine]:
        """An engine whose model is behind the server."""
        provider = {
            "name": "mock",
            "base_url": self.server.url,
            "supports_websockets": True,
            "request_max_retries": 0,
            "stream_max_retries": 0,
            "auth": {"command": "echo", "args": ["token"]},
        }
        config: dict[str, object] = {"model_provider": "mock", "model_providers.mock": provider}
        return engine.open_engine(home=self.home, config=config, grace=5)

    def settings(self) -> engine.SessionSettings:
        """Settings of its sessions."""
        return engine.SessionSettings(cwd=self.repository, shell="bash", sandbox="danger-full-access")

    async def live(self, opened: engine.Engine) -> str:
        """A session with everything in its start and two turns."""
        opened._graph = EVERYTHING
        async with opened.session(self.settings()) as session:
            assert (await session.run("go")).final_message == "done"
            assert (await session.run("next")).final_message == "next it is"
        return "lived"

    def check(self) -> None:
        """The home is sound; every turn that began has one end; a turn that completed has what its command said."""
        assert verify_home(self.home).clean
        for path in self.home.rglob("rollout-*.jsonl"):
            lines = [json.loads(line) for line in path.read_text().splitlines()]
            assert lines[0]["payload"]["git"]["commit_hash"], "it is a repository"
            begun = [line["payload"]["turn_id"] for line in lines if line["payload"].get("type") == "task_started"]
            ends = [check_rollout(lines, turn) for turn in begun]
            assert ends.count("turn_aborted") <= 1
            if ends[:1] == ["task_complete"]:
                assert "the first" in path.read_text()
        assert list(self.home.glob("shell_snapshots/*")) == []
        assert list(self.home.rglob("*.tmp*")) == []
        assert not (self.home / "engine_locks").exists()


def of_the_engine(snapshot: Snapshot) -> Snapshot:
    """Without the tasks of the server and its clock, and the idle connections that an engine keeps."""
    tasks = Counter({name: number for name, number in snapshot.tasks.items() if not name.startswith(BESIDE)})
    return attrs.evolve(snapshot, tasks=tasks, descriptors=Counter())


async def beside_a_server(home: Path, repository: Path, what: Callable[[World], Awaitable[str]]) -> str:
    """What `what` says; the tasks of the server are no points."""
    outcomes: list[str] = []

    async def client(world: World) -> None:
        outcomes.append(await what(world))
        server.stop()

    with trio.fail_after(PATIENCE_S):
        async with trio.open_nursery() as nursery:
            server: ScriptServer = await nursery.start(serve_script, model())
            server.models = [{"slug": "told", "visibility": "list", "priority": 0}]
            nursery.start_soon(client, World(home, repository, server))
    return outcomes[0]


def swept(how: str, repository: Path) -> Case:
    """A life that is cut off, and another one after it, in the same engine where that goes on."""

    async def cut_off(world: World, points: Places) -> str:
        async with world.open() as opened:
            if how == "warm":  # what an engine keeps is there already
                await world.live(opened)
            before = await inside(opened)
            outcome = "cancelled"
            with trio.CancelScope() as scope:
                points.arm(interrupt if how == "ctrl-c" else scope.cancel)
                try:
                    outcome = await world.live(opened)
                    await trio.lowlevel.checkpoint()
                finally:
                    points.disarm()
            assert opened.sessions() == ()
            assert opened._services.supervisor.statistics().live == 0
            assert differences(of_the_engine(before), of_the_engine(await inside(opened))) == []
            world.check()
            assert await world.live(opened) == "lived"
        return "cancelled" if scope.cancelled_caught else outcome

    async def again(world: World) -> str:
        world.check()
        async with world.open() as opened:
            assert await world.live(opened) == "lived"
        world.check()
        return "lived again"

    def case(points: Places, folder: Path) -> str:
        home = folder / "home"
        home.mkdir()
        before = outside()
        outcome = "interrupted"
        try:
            outcome = trio.run(beside_a_server, home, repository, lambda world: cut_off(world, points))
        except BaseException as exc:
            if not is_ctrl_c(exc):
                raise
            assert points.hit
        assert differences(before, outside()) == []
        assert trio.run(beside_a_server, home, repository, again) == "lived again"
        assert differences(before, outside()) == []
        return outcome

    return case


@sizes(8, at_most=150)
@pytest.mark.parametrize("how", ["cold", "warm", "ctrl-c"])
def test_a_whole_life_is_cut_off(how: str, size: int, repository: Path, tmp_path: Path) -> None:
    sweep(swept(how, repository), tmp_path, size).check()
