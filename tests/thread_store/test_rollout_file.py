"""What others do to a rollout while its thread is live: removed, replaced, cut, moved, grown; and full disks."""

from __future__ import annotations

import errno
import json
import logging
import os
from collections.abc import AsyncIterator
from contextlib import aclosing
from pathlib import Path

import pytest
import trio

from engine.errors import StoreError
from engine.protocol.rollout_items import RolloutItem
from engine.rollout.lines import encode_rollout_line
from engine.thread_store.appender import Appender, open_appender
from engine.thread_store.batches import Patience
from engine.thread_store.files import FileStatus
from engine.thread_store.rollout_writer import RolloutWriter
from tests.thread_store.faults import FaultyFiles
from tests.thread_store.stories import meta, said, telling, texts

QUICK = Patience(first=0.001, longest=0.002, descriptors=60.0, glance=0.001)


def head(stamp: str) -> bytes:
    return encode_rollout_line(meta(), stamp)


@pytest.fixture
async def appender() -> AsyncIterator[Appender]:
    async with open_appender() as made:
        yield made


class Told:
    """Waits for what a writer has to say."""

    def __init__(self, writer: RolloutWriter) -> None:
        self.texts: list[str] = []
        self._some = trio.Event()
        writer.on_notice(self._hear)

    def _hear(self, text: str) -> None:
        self.texts.append(text)
        self._some.set()

    async def first(self) -> str:
        with trio.fail_after(10):
            await self._some.wait()
        return self.texts[0]


async def written(appender: Appender, path: Path, *items: str) -> RolloutWriter:
    """A writer that has written these."""
    writer = RolloutWriter(appender, str(path), head)
    writer.append([telling(text) for text in items])
    await writer.flush()
    return writer


async def test_a_removed_file_is_written_anew_byte_for_byte(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "day" / "a.jsonl"
    writer = await written(appender, path, "1", "2")
    told = Told(writer)
    before = path.read_bytes()
    path.unlink()
    path.parent.rmdir()
    writer.append([telling("3")])
    await writer.flush()
    assert path.read_bytes().startswith(before)
    assert texts(path) == ["meta", "1", "2", "3"]
    assert list(path.parent.iterdir()) == [path]
    [text] = told.texts
    assert f"{path} was removed" in text
    writer.append([telling("4")])
    await writer.close()
    assert texts(path) == ["meta", "1", "2", "3", "4"]
    assert len(told.texts) == 1


@pytest.mark.parametrize("verb", ["persist", "close"])
async def test_a_removed_file_is_noticed_without_anything_to_write(
    tmp_path: Path, appender: Appender, verb: str
) -> None:
    path = tmp_path / "a.jsonl"
    writer = await written(appender, path, "1")
    path.unlink()
    await getattr(writer, verb)()
    assert texts(path) == ["meta", "1"]


async def test_a_replaced_file_is_kept_aside(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    writer = await written(appender, path, "1")
    for number, text in enumerate("23"):
        path.unlink()
        path.write_text(f"an intruder {number}")
        writer.append([telling(text)])
        await writer.flush()
    assert texts(path) == ["meta", "1", "2", "3"]
    assert (tmp_path / "a.jsonl.replaced").read_text() == "an intruder 0"
    assert (tmp_path / "a.jsonl.replaced-2").read_text() == "an intruder 1"


async def test_a_folder_in_place_of_the_file_is_kept_aside(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    writer = await written(appender, path, "1")
    path.unlink()
    path.mkdir()
    writer.append([telling("2")])
    await writer.flush()
    assert texts(path) == ["meta", "1", "2"]
    assert (tmp_path / "a.jsonl.replaced").is_dir()


@pytest.mark.parametrize("how", ["cut", "removed while closed"])
async def test_a_lost_file_is_written_anew_from_memory(tmp_path: Path, how: str) -> None:
    path = tmp_path / "a.jsonl"
    async with aclosing(Appender(open_files=1)) as appender:
        writer = await written(appender, path, "1", "2")

        def memory() -> list[RolloutItem]:
            return [said(f"all up to {writer.submitted}")]

        writer.on_lost(memory)
        told = Told(writer)
        if how == "cut":
            os.truncate(path, 10)
        else:
            await written(appender, tmp_path / "b.jsonl", "takes the only handle")
            path.unlink()
        writer.append([telling("3")])
        await writer.flush()
        assert texts(path) == ["meta", "all up to 3"]
        assert (writer.written, writer.acknowledged, writer.queued, appender.queued) == (3, 3, 0, 0)
        writer.append([telling("4")])
        await writer.close()
        assert len(told.texts) == 1
    assert texts(path) == ["meta", "all up to 3", "4"]
    assert (tmp_path / "a.jsonl.replaced").exists() == (how == "cut")


async def test_a_memory_that_fails_keeps_nobody_waiting(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    path = tmp_path / "a.jsonl"

    def broken() -> list[RolloutItem]:
        raise RuntimeError("a bug")

    async with aclosing(Appender()) as appender:
        writer = await written(appender, path, "1", "2")
        writer.on_lost(broken)
        os.truncate(path, 10)
        writer.append([telling("3")])
        with trio.fail_after(5), caplog.at_level(logging.ERROR):
            await writer.flush()
    assert texts(path) == ["meta", "3"]
    assert "so is what was in memory" in caplog.text


async def test_without_memory_the_first_line_comes_back(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    writer = await written(appender, path, "1", "2")
    os.truncate(path, 0)
    writer.append([telling("3")])
    await writer.flush()
    assert texts(path) == ["meta", "3"]


async def test_a_file_removed_before_the_first_line_of_a_resumed_thread(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    path.write_bytes(head("x"))
    writer = RolloutWriter(appender, str(path), head, found=FileStatus.of(path.stat()), owns_file=False)
    path.unlink()
    writer.append([telling("1")])
    await writer.flush()
    assert texts(path) == ["meta", "1"]


@pytest.mark.parametrize("handles", [1, 10])
async def test_a_moved_file_is_followed(tmp_path: Path, handles: int) -> None:
    path, archived = tmp_path / "a.jsonl", tmp_path / "archive" / "a.jsonl"
    archived.parent.mkdir()
    async with aclosing(Appender(open_files=handles)) as appender:
        writer = RolloutWriter(appender, str(path), head, places=lambda: [str(tmp_path / "nowhere"), str(archived)])
        writer.append([telling("1")])
        await writer.flush()
        await written(appender, tmp_path / "b.jsonl", "x")
        path.rename(archived)
        writer.append([telling("2")])
        await writer.flush()
        assert writer.path == str(archived)
        archived.unlink()
        writer.append([telling("3")])
        await writer.close()
    assert not path.exists()
    assert texts(archived) == ["meta", "1", "2", "3"]


async def test_the_last_handle_to_a_removed_file_is_not_given_up(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with aclosing(Appender(files=files, open_files=1, patience=QUICK)) as appender:
        one = await written(appender, tmp_path / "one.jsonl", "1")
        (tmp_path / "one.jsonl").unlink()
        two = await written(appender, tmp_path / "two.jsonl", "1")  # wants the handle
        assert texts(one.path) == ["meta", "1"]
        (tmp_path / "two.jsonl").unlink()
        files.broken = errno.ENOSPC
        one.append([telling("2")])  # wants the handle, and can't have it
        two.append([telling("2")])
        with pytest.raises(StoreError):
            await two.flush()
        files.broken = 0
        await one.flush()
        await two.flush()
    assert texts(one.path) == texts(two.path) == ["meta", "1", "2"]
    assert files.open_handles == set()


async def test_lines_of_another_program_are_respected(tmp_path: Path, appender: Appender) -> None:
    path = tmp_path / "a.jsonl"
    writer = await written(appender, path, "1")
    for foreign in ('{"a": 1}\n', '{"torn'):
        with path.open("a") as file:
            file.write(foreign)
        writer.append([telling("2")])
        await writer.flush()
    lines = path.read_text().splitlines()
    assert len(lines) == 6
    assert (lines[2], lines[4]) == ('{"a": 1}', '{"torn')


async def test_half_a_line_that_another_program_continued_is_written_again(tmp_path: Path) -> None:
    files = FaultyFiles()
    path = tmp_path / "a.jsonl"
    async with aclosing(Appender(files=files, patience=Patience(first=1000))) as appender:
        writer = await written(appender, path, "1")
        files.script.extend([-30, errno.ENOSPC, errno.ENOSPC])
        writer.append([telling("2"), telling("3")])
        with pytest.raises(StoreError):
            await writer.flush()
        with path.open("a") as file:
            file.write('{"a": 1}\n')
        await writer.flush()
        assert (writer.written, writer.queued) == (3, 0)
    lines = path.read_text().splitlines()
    assert lines[2].endswith('{"a": 1}')
    assert [json.loads(line)["payload"]["message"] for line in lines[3:]] == ["2", "3"]


@pytest.mark.parametrize("trouble", [errno.ENOSPC, errno.EDQUOT, errno.EROFS, errno.EIO])
async def test_writing_goes_on_by_itself_once_it_can(tmp_path: Path, trouble: int) -> None:
    files = FaultyFiles()
    async with aclosing(Appender(files=files, patience=QUICK)) as appender:
        writer = await written(appender, tmp_path / "a.jsonl", "1")
        told = Told(writer)
        files.broken = trouble
        writer.append([telling("2")])
        with pytest.raises(StoreError):
            await writer.flush()
        writer.append([telling("3")])
        files.broken = 0
        assert "can be written again" in await told.first()  # nobody asked for it
        assert (writer.error, writer.written, appender.queued) == (None, 3, 0)
    assert texts(writer.path) == ["meta", "1", "2", "3"]


async def test_a_lack_of_descriptors_is_waited_for(tmp_path: Path) -> None:
    files = FaultyFiles(opening=True)
    async with aclosing(Appender(files=files, patience=QUICK)) as appender:
        idle = await written(appender, tmp_path / "idle.jsonl", "1")
        files.script.extend([errno.EMFILE, errno.ENFILE] * 10)
        writer = RolloutWriter(appender, str(tmp_path / "a.jsonl"), head)
        told = Told(writer)
        writer.append([telling("1")])
        assert writer.acknowledged == 0
        await writer.flush()  # no error
        assert told.texts == []
        await idle.persist()
    assert texts(writer.path) == ["meta", "1"]


async def test_a_lack_of_descriptors_that_stays_is_an_error(tmp_path: Path) -> None:
    files = FaultyFiles()
    async with aclosing(Appender(files=files, patience=Patience(descriptors=0.05, glance=0.001))) as appender:
        writer = await written(appender, tmp_path / "a.jsonl", "1")
        files.broken = errno.EMFILE
        writer.append([telling("2")])
        with pytest.raises(StoreError, match="Too many open files"):
            await writer.flush()
        assert writer.acknowledged == 2  # nobody waits for it any longer
        files.broken = 0
        await writer.flush()
    assert texts(writer.path) == ["meta", "1", "2"]
