"""`view_image`, and images as data URLs."""

from __future__ import annotations

import base64
import os
from pathlib import Path

import pytest

from engine.protocol.events import ViewImageToolCall
from engine.protocol.items import InputImage
from engine.protocol.profiles import FileSystemEntry, LiteralPath, ManagedProfile, RestrictedFileSystem
from engine.tools import images
from engine.tools.base import ToolError, ToolOutput
from engine.tools.images import image_data_url
from engine.tools.view_image import ViewImage

from .bench import Bench
from .test_exec_command import text_of

VIEW = ViewImage()
PNG = b"\x89PNG\r\n\x1a\nrest"


def url(kind: str, content: bytes) -> str:
    return f"data:image/{kind};base64,{base64.b64encode(content).decode()}"


async def test_an_image_is_shown(still: Bench) -> None:
    (still.cwd / "sub").mkdir()
    (still.cwd / "sub" / "a.png").write_bytes(PNG)
    output = await still.call(VIEW, {"path": "sub/../sub/a.png"})
    assert output == ToolOutput((InputImage(url("png", PNG), detail="high"),))
    assert still.events == [ViewImageToolCall("call", f"{still.cwd}/sub/a.png")]


@pytest.mark.parametrize(
    ("capable", "asked", "sent"),
    [(False, "original", "high"), (True, "original", "original"), (True, "high", "high"), (True, None, "high")],
)
async def test_detail_is_what_was_asked_for_and_the_model_can(
    still: Bench, capable: bool, asked: str | None, sent: str
) -> None:
    (still.cwd / "a.png").write_bytes(PNG)
    still.turn(model_sees_original_detail=capable)
    output = await still.call(VIEW, {"path": "a.png", "detail": asked})
    assert output.content == (InputImage(url("png", PNG), detail=sent),)


async def test_what_can_not_be_shown(still: Bench) -> None:
    (still.cwd / "a.txt").write_text("text")
    for arguments, text in [
        ({"path": "no.png"}, f"unable to locate image at `{still.cwd}/no.png`: No such file or directory"),
        ({"path": "."}, f"image path `{still.cwd}` is not a file"),
        (
            {"path": "a.txt"},
            f"unable to process image at `{still.cwd}/a.txt`: it is not a PNG, JPEG, GIF or WebP image",
        ),
        ({"path": "a.txt", "detail": "low"}, "view_image: `detail` must be `high` or `original`, got `low`"),
        ({"path": "a.txt", "environment_id": "moon"}, "unknown turn environment id `moon`"),
        ({}, "failed to parse function arguments: the field `path` is missing"),
        ({"path": "a\0b"}, f"unable to locate image at `{still.cwd}/a\0b`: embedded null byte"),
    ]:
        output = await still.call(VIEW, arguments)
        assert (text_of(output), output.success) == (text, False)
    still.turn(model_sees_images=False)
    output = await still.call(VIEW, {"path": "a.txt"})
    assert text_of(output) == "view_image is not allowed because this model does not take images"
    assert still.events == []


async def test_images_that_the_turn_may_not_read_are_not_shown(still: Bench) -> None:
    (still.cwd / "secret").mkdir()
    for place in ("a.png", "secret/b.png"):
        (still.cwd / place).write_bytes(PNG)
    (still.cwd / "link.png").symlink_to("secret/b.png")
    entries = (FileSystemEntry(LiteralPath("/"), "read"), FileSystemEntry(LiteralPath(f"{still.cwd}/secret"), "none"))
    still.turn(profile=ManagedProfile(RestrictedFileSystem(entries), "restricted"))
    assert (await still.call(VIEW, {"path": "a.png"})).success
    for place in ("secret/b.png", "link.png", "secret/missing.png"):
        output = await still.call(VIEW, {"path": place})
        assert text_of(output) == f"unable to locate image at `{still.cwd}/{place}`: Permission denied"
    assert len(still.events) == 1


@pytest.mark.parametrize(
    ("content", "kind"),
    [
        (PNG, "png"),
        (b"\xff\xd8\xff\xe0", "jpeg"),
        (b"GIF87a", "gif"),
        (b"GIF89a", "gif"),
        (b"RIFF\x00\x00\x00\x00WEBPVP8", "webp"),
    ],
)
def test_kind_is_told_by_the_content(tmp_path: Path, content: bytes, kind: str) -> None:
    path = tmp_path / "image.txt"
    path.write_bytes(content)
    assert image_data_url(str(path)) == url(kind, content)


@pytest.mark.parametrize("content", [b"", b"RIFF\x00\x00\x00\x00WAVE", b"<svg/>"])
def test_other_contents_are_no_images(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(content)
    with pytest.raises(ToolError, match="unable to process image"):
        image_data_url(str(path))


def test_limits_and_kinds_of_files(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)
    monkeypatch.setattr(images, "MAX_IMAGE_BYTES", 4)
    with pytest.raises(ToolError, match="12 bytes is more than the limit of 4"):
        image_data_url(str(path))
    os.mkfifo(tmp_path / "pipe")
    with pytest.raises(ToolError, match="is not a file"):
        image_data_url(str(tmp_path / "pipe"))


def test_unreadable_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "image.png"
    path.write_bytes(PNG)

    def refuse(*_: object) -> None:
        raise PermissionError(13, "Permission denied")

    monkeypatch.setattr(images, "open", refuse, raising=False)
    with pytest.raises(ToolError, match=r"unable to read image at `.*`: Permission denied"):
        image_data_url(str(path))
