"""Further file descriptors for commands, and the placeholders that the supervisor releases when a tree is gone."""

from __future__ import annotations

import fcntl
import os
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest
import trio

from engine.execution._placeholder import FOLDER_MODE
from engine.execution.oneshot import run_command
from engine.execution.process import ExitStatus, ExtraFiles, SpawnError
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.execution.terminals import TerminalManager

from .processes import environment, read_all


@contextmanager
def memory_file(content: bytes) -> Iterator[int]:
    fd = os.memfd_create("test")
    try:
        os.write(fd, content)
        os.lseek(fd, 0, os.SEEK_SET)
        yield fd
    finally:
        os.close(fd)


@contextmanager
def held(path: Path) -> Iterator[tuple[int, int, str]]:
    """A placeholder folder as the sandbox makes them."""
    path.mkdir(FOLDER_MODE)
    fd, folder_fd = os.open(path, os.O_RDONLY), os.open(path.parent, os.O_PATH)
    try:
        fcntl.flock(fd, fcntl.LOCK_SH)
        yield fd, folder_fd, path.name
    finally:
        os.close(fd)
        os.close(folder_fd)


async def test_a_command_gets_them_under_their_numbers(supervisor: Supervisor) -> None:
    with memory_file(b"three") as three, memory_file(b"nine") as nine:
        script = "cat <&9; cat <&3; ls /proc/$$/fd | tr '\\n' ' '"
        result = await run_command(
            supervisor, ["sh", "-c", script], cwd="/", env=environment(), files=ExtraFiles({3: three, 9: nine})
        )
        assert result.stdout_text.startswith("ninethree")
        assert set(result.stdout_text[9:].split()) == {"0", "1", "2", "3", "9"}
        os.fstat(three)  # still ours


async def test_numbers_do_not_get_into_each_others_way(supervisor: Supervisor) -> None:
    with memory_file(b"a") as a, memory_file(b"b") as b:
        # As hard as it gets: ours have the numbers that the other one is to get.
        a3, b4 = os.dup2(a, 203), os.dup2(b, 204)
        try:
            result = await run_command(
                supervisor,
                ["sh", "-c", "cat <&3; cat <&4"],
                cwd="/",
                env=environment(),
                files=ExtraFiles({4: a3, 3: b4}),
            )
        finally:
            os.close(a3)
            os.close(b4)
    assert result.stdout_text == "ba"


async def test_inheritable_ones_of_the_host_are_not_among_them(supervisor: Supervisor) -> None:
    inheritable = os.dup(2)
    os.set_inheritable(inheritable, True)
    try:
        with memory_file(b"") as fd:
            result = await run_command(
                supervisor, ["sh", "-c", "ls /proc/$$/fd"], cwd="/", env=environment(), files=ExtraFiles({5: fd})
            )
    finally:
        os.close(inheritable)
    assert set(result.stdout_text.split()) == {"0", "1", "2", "5"}


async def test_they_may_stand_for_the_streams(supervisor: Supervisor, tmp_path: Path) -> None:
    output = os.open(tmp_path / "output", os.O_WRONLY | os.O_CREAT)
    try:
        with memory_file(b"hello") as source:
            files = ExtraFiles({0: source, 1: output})
            async with await supervisor.spawn(["cat"], cwd="/", env=environment(), files=files) as running:
                assert await read_all(running.stdout) == b""
                assert await running.wait() == ExitStatus(code=0)
    finally:
        os.close(output)
    assert (tmp_path / "output").read_bytes() == b"hello"


async def test_a_terminal_command_gets_them_too(supervisor: Supervisor, tmp_path: Path) -> None:
    async with trio.open_nursery() as nursery:
        manager = TerminalManager(supervisor, nursery)
        with memory_file(b"hello") as fd:
            reply = await manager.exec_command(
                ["sh", "-c", "tty <&2; cat <&7; pwd"],
                cwd=str(tmp_path),
                env=environment(),
                call_id="c",
                tty=True,
                files=ExtraFiles({7: fd}),
            )
        assert reply.exit_code == 0
        assert "/dev/pts/" in reply.output
        assert reply.output.endswith(f"hello{tmp_path}\r\n")
        await manager.close()


@pytest.mark.parametrize(("argv", "cwd"), [(["/no/program"], "/"), (["true"], "/no/folder"), (["true"], "/etc/passwd")])
async def test_a_start_with_them_that_fails_says_why(supervisor: Supervisor, argv: list[str], cwd: str) -> None:
    with memory_file(b"") as fd, pytest.raises(SpawnError) as caught:
        await supervisor.spawn(argv, cwd=cwd, env=environment(), files=ExtraFiles({3: fd}))
    assert caught.value.subject == (argv[0] if cwd == "/" else cwd)


async def test_other_numbers_and_too_many_are_refused(supervisor: Supervisor) -> None:
    with memory_file(b"") as fd:
        for fds in ({256: fd}, {-1: fd}, dict.fromkeys(range(3, 244), fd)):
            with pytest.raises(SpawnError):
                await supervisor.spawn(["true"], cwd="/", env=environment(), files=ExtraFiles(fds))


async def test_as_many_as_go(supervisor: Supervisor, tmp_path: Path) -> None:
    with memory_file(b"hello") as fd:
        files = ExtraFiles(dict.fromkeys(range(3, 243), fd))
        script = "cat <&242; ls /proc/$$/fd > list"
        result = await run_command(
            supervisor, ["bash", "-c", script], cwd=str(tmp_path), env=environment(), files=files
        )
    assert result.stdout_text == "hello"
    assert set((tmp_path / "list").read_text().split()) - {"255"} == set(map(str, range(243)))


# --- placeholders ------------------------------------------------------------------------------


async def test_a_placeholder_stands_until_the_tree_is_gone(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept:
        files = ExtraFiles(kept=(kept,))
        process = await supervisor.spawn(["sh", "-c", "sleep 1000 & echo"], cwd="/", env=environment(), files=files)
    assert files.kept_by_supervisor
    async with process:
        await process.wait()
        assert path.is_dir()
    assert not path.exists()


async def test_the_last_one_removes_it(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept:
        other = os.open(path, os.O_RDONLY)  # as somebody else has it
        folder = os.dup(kept[1])
        fcntl.flock(other, fcntl.LOCK_SH)
        await run_command(supervisor, ["true"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,)))
    try:
        assert path.is_dir()
        await run_command(
            supervisor, ["true"], cwd="/", env=environment(), files=ExtraFiles(kept=((other, folder, path.name),))
        )
        assert not path.exists()
    finally:
        os.close(other)
        os.close(folder)


async def test_what_somebody_put_in_is_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept:
        (path / "config").write_text("x")
        await run_command(supervisor, ["true"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,)))
    assert (path / "config").read_text() == "x"


async def test_another_folder_of_the_same_name_is_left_alone(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept:
        path.rename(tmp_path / "elsewhere")
        path.mkdir()
        await run_command(supervisor, ["true"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,)))
    assert path.is_dir()


async def test_a_start_that_fails_removes_it(supervisor: Supervisor, tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept, pytest.raises(SpawnError):
        await supervisor.spawn(["/no/program"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,)))
    assert not path.exists()


async def test_the_end_of_the_block_removes_it(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    with held(path) as kept:
        async with open_supervisor() as supervisor:
            process = await supervisor.spawn(
                ["sleep", "1000"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,))
            )
            process.close_streams()
    assert not path.exists()


async def test_a_killed_host_leaves_none(tmp_path: Path) -> None:
    path = tmp_path / "missing"
    async with open_supervisor() as supervisor:
        with held(path) as kept:
            await supervisor.spawn(["sleep", "1000"], cwd="/", env=environment(), files=ExtraFiles(kept=(kept,)))
        link = supervisor._link
        assert link is not None
        link.control.shutdown(socket.SHUT_RDWR)  # what the supervisor sees of a SIGKILL to the host
        with trio.fail_after(10):
            await link.ended.wait()
        assert not path.exists()
