"""Files that a profile denies, by name and by glob: read by commands, by patches and as images."""

from __future__ import annotations

import os

import pytest

from engine.models.scripts import call, patch, response
from tests.execution.sandbox.conftest import place as place
from tests.execution.sandbox.conftest import workspace as workspace

from .sessions import HostileModel, run
from .test_session_commands import _sandbox_works as _sandbox_works
from .test_session_commands import hostile as hostile

SECRET = "correct-horse"
PROFILE = """
default_permissions = "dev"
[permissions.dev]
extends = ":workspace"
[permissions.dev.filesystem]
":workspace_roots" = { "secret" = "none", "**/*.pem" = "none" }
"""
# The smallest picture there is.
PIXEL = bytes.fromhex(
    "89504e470d0a1a0a0000000d49484452000000010000000108060000001f15c4890000000d49444154789c6360000002000001e221bc330000"
    "000049454e44ae426082"
)


@pytest.fixture
def secrets(hostile: HostileModel) -> HostileModel:
    with open(hostile.home / "config.toml", "a") as file:
        file.write(PROFILE)
    ws = hostile.workspace
    (ws / "secret").mkdir()
    for name in ("secret/key", "conf.pem", "src/deep.pem"):
        (ws / name).write_text(f"{SECRET}\n")
    (ws / "picture.pem").write_bytes(PIXEL)
    (ws / "alias").symlink_to("conf.pem")
    (ws / "picture.png").symlink_to("picture.pem")
    return hostile


def change(header: str, body: str) -> str:
    return f"*** Begin Patch\n*** {header}\n{body}\n*** End Patch"


async def test_what_is_denied_stays_so_for_every_tool(secrets: HostileModel) -> None:
    patches = [
        change(f"Update File: {name}", f"@@\n-{SECRET}\n+known")
        for name in ("secret/key", "conf.pem", "src/deep.pem", "alias", "./src/../conf.pem")
    ]
    patches += [
        change(f"Update File: {name}\n*** Move to: mine", f"@@\n-{SECRET}\n+known")
        for name in ("secret/key", "conf.pem", "alias")
    ]
    patches += [change(f"Delete File: {name}", "") for name in ("secret/key", "conf.pem")]
    patches += [change(f"Update File: {name}", "@@\n-wrong guess\n+x") for name in ("secret/key", "conf.pem", "alias")]
    patches += [change(f"Add File: {name}", "+x") for name in ("secret/new", "conf.pem")]
    outputs = await secrets.attack(
        run("cat secret/key conf.pem src/*.pem alias; cp conf.pem x; mv src/deep.pem y; grep -r . . | sort | head -50"),
        *(response(patch(text)) for text in patches),
        *(response(call("view_image", path=name)) for name in ("picture.pem", "picture.png", "./src/../picture.pem")),
        sandbox=None,
    )
    assert len(outputs) == 1 + len(patches) + 3
    for output in outputs:
        assert "Success. Updated" not in output
        assert "data:image" not in output
    assert SECRET not in outputs[0]
    assert not any(SECRET in output for output in outputs[1 + len(patches) - 5 : 1 + len(patches)]), "told by an error"
    for name in ("secret/key", "conf.pem", "src/deep.pem"):
        assert (secrets.workspace / name).read_text() == f"{SECRET}\n"
    assert os.listdir(secrets.workspace / "secret") == ["key"]
