"""Writing where nothing may be written: by other names, other calls, other owners of the same bytes."""

from __future__ import annotations

import os
import shutil
import socket
from pathlib import Path

import pytest
import trio

from engine.execution.sandbox.errors import SandboxPolicyError
from tests.execution.sandbox.running import READ_ALL, policy, workspace_write

from .conftest import Attacker
from .host import snapshot

# Each tries to change `../outside/file` or the metadata of the workspace by one trick.
TRICKS = {
    "by a link to the file": """
        ln -s ../outside/file l
        echo x > l
        cp src/main.py l
        dd if=src/main.py of=l
    """,
    "by a link to the folder": """
        ln -s ../outside d
        touch d/new
        mv src/main.py d/
        mkdir d/new
        cp -r src d/
    """,
    "by an absolute link": """
        ln -s "$(realpath ../outside)" a
        echo x > a/file
        ln -s / r
        echo x > "r$(realpath .)/../outside/file"
    """,
    "by a hard link": """
        ln ../outside/file h
        echo x > h
        ln .git/config g
        echo x > g
        ln -P /etc/passwd p && echo ESCAPED
    """,
    "by dots": """
        echo x > ../outside/file
        echo x > src/../../outside/file
        cd .git
        echo x > config
        echo x > ../.git/new
    """,
    "by /proc/self/root": """
        p=$(realpath ..)
        echo x > /proc/self/root$p/outside/file
        echo x > /proc/1/root$p/outside/new
    """,
    "by /proc/self/cwd": """
        echo x > /proc/self/cwd/../outside/file
        echo x > /proc/self/cwd/.git/config
    """,
    "by an open descriptor": """
        exec 3< ../outside/file
        echo x > /proc/self/fd/3
        echo x >> /dev/fd/3
        exec 4< .git/config
        echo x > /proc/self/fd/4
    """,
    "by renaming metadata": """
        mv .git git
        mv .codex c
        mv .agents a
        mv -T src .git
        rm -rf .git
        rmdir .codex
        mv .git/config .
    """,
    "by replacing metadata": """
        mkdir new
        mv -T new .git
        ln -sfn src .git
        ln -sf ../outside .codex
        cp -rT src .agents
        echo x > .git
    """,
    "by renaming the workspace": """
        cd ..
        mv ws other
        mv outside ws/
        ln -s outside ws/../x
        rmdir outside
    """,
    "by modes and owners": """
        chmod 777 ../outside ../outside/file .git .git/config
        chown 0:0 ../outside/file
        chgrp 0 .git
        touch -d @0 ../outside/file .git/config
    """,
    "by attributes": """
        setfattr -n user.x -v y ../outside/file
        setfattr -n user.x -v y .git
        chattr +i ../outside/file
        chattr +A .git/config
    """,
    "by cutting": """
        truncate -s 0 ../outside/file
        truncate -s 0 .git/config
        : > ../outside/file
        fallocate -l 99 ../outside/file
    """,
    "by removing": """
        rm -rf ../outside ../ws .git
        unlink ../outside/file
        rm -f .git/config
        find .. -delete
    """,
    "by special files": """
        mknod ../outside/pipe p
        mknod b b 254 0 && dd if=b count=1
        mkfifo .git/pipe
        mknod c c 1 1 && cat c
    """,
    "by device files": """
        chmod 666 /dev/null && echo ESCAPED
        chown 0:0 /dev/zero && echo ESCAPED
        touch -d @0 /dev/full && echo ESCAPED
        head -c1 /dev/mem && echo ESCAPED
        head -c1 /dev/kmsg && echo ESCAPED
        ls /dev/vda /dev/sda /dev/fuse /dev/kvm && echo ESCAPED
        true
    """,
    "by kernel parameters": """
        for f in kernel/core_pattern kernel/modprobe vm/swappiness
        do cat /proc/sys/$f > v
        cat v > /proc/sys/$f && echo ESCAPED $f
        done
        echo h > /proc/sysrq-trigger && echo ESCAPED sysrq
    """,
    "by /sys": """
        for f in /sys/kernel/uevent_helper /sys/power/state /sys/fs/cgroup/release_agent /sys/kernel/mm/ksm/run
        do if [ -e $f ]
        then echo > $f && echo ESCAPED $f
        fi
        done
        mkdir /sys/fs/cgroup/x && echo ESCAPED cgroup
    """,
    "by setuid programs": """
        su -c id
        sudo -n id && echo ESCAPED sudo
        mount -t tmpfs t . && echo ESCAPED mount
        passwd -S root
        newgrp root -c id
    """,
}


@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
async def test_nothing_is_written(attacker: Attacker, trick: str) -> None:
    await attacker.attack('sh -c "$1" </dev/null 2>&1; true', trick)


async def test_calls_that_shells_have_no_word_for(attacker: Attacker) -> None:
    await attacker.attack_in_python(
        """
RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT = 1, 2, 4
AT_FDCWD, AT_EMPTY_PATH, AT_SYMLINK_FOLLOW = -100, 0x1000, 0x400
def rename(old, new, flags):
    if libc.renameat2(AT_FDCWD, old, AT_FDCWD, new, flags) < 0:
        raise OSError(ctypes.get_errno(), os.strerror(ctypes.get_errno()))
for flags in (0, RENAME_NOREPLACE, RENAME_EXCHANGE, RENAME_WHITEOUT):
    attempt("exchange", rename, b".git", b"src", flags)
    attempt("exchange", rename, b"src", b".codex", flags)
    attempt("exchange", rename, b"src/main.py", b".git/config", flags)
    attempt("exchange", rename, b"src", b"../outside", flags)
for flags in (os.O_WRONLY, os.O_RDWR, os.O_RDONLY | os.O_TRUNC, os.O_WRONLY | os.O_CREAT, os.O_WRONLY | os.O_APPEND):
    attempt("open", os.open, "../outside/file", flags)
    attempt("open", os.open, ".git/config", flags)
attempt("unnamed file", os.open, ".git", os.O_TMPFILE | os.O_WRONLY)
attempt("unnamed file", os.open, "../outside", os.O_TMPFILE | os.O_WRONLY)
unnamed = os.open(".", os.O_TMPFILE | os.O_WRONLY)
for name in (b".git/hook", b"../outside/new"):
    path = f"/proc/self/fd/{unnamed}".encode()
    if libc.linkat(AT_FDCWD, path, AT_FDCWD, name, AT_SYMLINK_FOLLOW) == 0:
        print("ESCAPED linkat")
# A file that is open for reading is not written through a map of it.
import mmap
with open("../outside/file", "rb") as file:
    attempt("map", mmap.mmap, file.fileno(), 7, mmap.MAP_SHARED, mmap.PROT_READ | mmap.PROT_WRITE)
    shared = mmap.mmap(file.fileno(), 7, mmap.MAP_SHARED, mmap.PROT_READ)
    if libc.mprotect(ctypes.c_void_p(0), 7, 3) == 0:
        print("ESCAPED mprotect")
# Descriptors of folders, and climbing from them.
inside = os.open(".git", os.O_PATH)
for name in ("config", "new", "../../outside/file"):
    try:
        os.close(os.open(name, os.O_WRONLY | os.O_CREAT, dir_fd=inside))
        print("ESCAPED openat", name)
    except OSError:
        pass
root = os.open("/", os.O_PATH)
attempt("chroot", os.chroot, "..")
attempt("fchdir", os.open, "../outside/new", os.O_WRONLY | os.O_CREAT)
# Handles open files past every mount.
handle = (ctypes.c_uint32 * 64)(248)
mount = ctypes.c_int()
if libc.name_to_handle_at(AT_FDCWD, b"../outside/file", handle, ctypes.byref(mount), 0) == 0:
    if libc.open_by_handle_at(root, handle, os.O_RDWR) >= 0:
        print("ESCAPED open_by_handle_at")
# Flags and quotas of files, by descriptors that may only read.
import fcntl, struct
for name in ("../outside/file", ".git/config"):
    with open(name, "rb") as file:
        attempt("flags", fcntl.ioctl, file, 0x40086602, struct.pack("l", 0x40))
        attempt("utime", os.utime, file.fileno(), (0, 0))
        attempt("fchmod", os.fchmod, file.fileno(), 0o777)
        attempt("truncate", os.truncate, file.fileno(), 0)
        attempt("truncate", os.truncate, name, 0)
"""
    )


async def test_pointers_that_lead_elsewhere(attacker: Attacker, place: Path) -> None:
    """A `.git` file that comes from the repository itself: what it names is protected, not opened."""
    tree = attacker.cwd / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {place}/outside\n")
    attacker.cwd, attacker.policy = tree, workspace_write(tree)
    await attacker.attack(f"echo x > .git; rm .git; echo x > {place}/outside/file; ln -sf ../.git .git")
    # Nor does it make the metadata of somebody else writable where both are.
    attacker.policy = workspace_write(tree, attacker.cwd.parent)
    await attacker.attack("echo x > ../.git/config; echo x > ../.git/hooks; mv ../.git ../git; mv ../tree ../other")


async def test_worktrees(attacker: Attacker, place: Path, user: int | None) -> None:
    target = attacker.cwd / ".git" / "worktrees" / "tree"
    tree = place / "tree"
    assert not target.exists()
    result = await attacker.attack(f"mkdir -p {target}; echo 'gitdir: {target}' > {tree}/.git; git worktree add {tree}")
    assert not tree.exists()
    assert result.exit_code != 0


async def test_a_worktree_of_a_repository_beside_it(attacker: Attacker, user: int | None) -> None:
    """What it shares with the repository lies outside of it: hooks there would run as the user."""
    main, tree = attacker.cwd / "main", attacker.cwd / "tree"
    git = shutil.which("git")
    if git is None:
        pytest.skip("no git")
    identity = ("-c", "user.name=x", "-c", "user.email=x@example.org")
    for words in (
        ("init", "-q", str(main)),
        ("-C", str(main), *identity, "commit", "-q", "--allow-empty", "-m", "first"),
        ("-C", str(main), "worktree", "add", "-q", str(tree)),
    ):
        await trio.run_process([git, *words], capture_stdout=True, capture_stderr=True)
    if user is not None and os.geteuid() == 0:
        await trio.run_process(["chown", "-R", f"{user}:{user}", str(main), str(tree)])
    before = snapshot(attacker.cwd, tree)
    attacker.cwd, attacker.policy = tree, workspace_write(tree)
    result = await attacker.attack(
        f"""
        exec 2>&1
        git status --short
        git config core.hooksPath hooks && echo ESCAPED config
        git config --worktree core.fsmonitor ./x && echo ESCAPED worktree config
        echo x > file; git add file && echo ESCAPED index
        git {" ".join(identity)} commit -q -a --allow-empty -m x && echo ESCAPED commit
        git branch other && echo ESCAPED branch
        git worktree add ../another && echo ESCAPED worktree
        git worktree move . ../moved && echo ESCAPED move
        git worktree remove --force . && echo ESCAPED remove
        for d in {main}/.git {main}/.git/worktrees/tree
        do echo x > $d/hooks; echo x > $d/config; echo x > $d/commondir; echo x > $d/gitdir; mkdir $d/hooks; rm -rf $d
        done
        echo "gitdir: $PWD/own" > .git && echo ESCAPED pointer
        rm -f .git && echo ESCAPED pointer
        mv .git other && echo ESCAPED pointer
        ln -sf own .git && echo ESCAPED pointer
        true
        """
    )
    assert "not a git repository" not in result.stdout_text
    assert "dubious ownership" not in result.stdout_text
    assert snapshot(attacker.cwd.parent, tree) == before


async def test_paths_that_come_later(attacker: Attacker, place: Path) -> None:
    """What is missing when a command starts is no way out for the next one."""
    ws = attacker.cwd
    attacker.policy = policy(
        READ_ALL, (str(ws), "write"), (f"{ws}/build", "write"), (f"{ws}/secret/key", "none"), (f"{ws}/docs", "read")
    )
    await attacker.attack(
        "ln -s ../outside build; mkdir secret; mkdir -p docs/x; echo x > docs; mkdir .git/x; echo > .codex"
    )
    assert (ws / "build").is_symlink()
    with pytest.raises(SandboxPolicyError, match="leads outside through writable symlink"):
        await attacker.attack("echo x > build/file")
    (ws / "build").unlink()
    (ws / "secret").mkdir()
    (ws / "secret" / "key").write_text("key")
    (ws / "docs").mkdir()
    if attacker.user is not None:
        for name in ("secret", "secret/key", "docs"):
            os.chown(ws / name, attacker.user, attacker.user)
    result = await attacker.attack(
        """
        cat secret/key && echo ESCAPED
        mv secret other
        cat other/key && echo ESCAPED
        mv docs d
        echo x > docs/x
        rm -rf secret docs
        ln -sfn ../outside docs
        ln -sfn ../outside secret
        ln secret/key k
        cp secret/key k && echo ESCAPED
        """
    )
    assert "key" not in result.stdout_text
    assert (ws / "secret" / "key").read_text() == "key"
    assert os.listdir(ws / "docs") == []


async def test_names_of_denied_files(attacker: Attacker, place: Path) -> None:
    ws = attacker.cwd
    (ws / "conf").mkdir()
    (ws / "conf" / "a.pem").write_text("key")
    (ws / "conf" / "alias.pem").symlink_to("a.pem")
    if attacker.user is not None:
        for name in ("conf", "conf/a.pem"):
            os.chown(ws / name, attacker.user, attacker.user)
    attacker.policy = policy(READ_ALL, (str(ws), "write"), (f"{ws}/conf/*.pem", "none"))
    for _ in range(2):
        result = await attacker.attack(
            """
            cat conf/a.pem conf/alias.pem
            mv conf/a.pem x
            ln conf/a.pem y
            cat x y
            mv conf c
            cat c/a.pem
            mv c conf
            cp conf/a.pem z
            cat z
            dd if=conf/a.pem
            chmod 777 conf/a.pem
            cat /proc/self/cwd/conf/a.pem
            tar cf - conf | tr -d '[:space:]' | sed s/a.pem//g
            """
        )
        assert "key" not in result.stdout_text
    assert (ws / "conf" / "a.pem").read_text() == "key"


async def test_sockets_and_pipes_of_the_host(attacker: Attacker) -> None:
    """What can be reached by a path in a read-only place could still be talked to."""
    path = attacker.cwd.parent / "outside"
    with socket.socket(socket.AF_UNIX) as stream, socket.socket(socket.AF_UNIX, socket.SOCK_DGRAM) as datagram:
        for server, name in ((stream, "stream"), (datagram, "datagram")):
            server.bind(f"{path}/{name}")
            os.chmod(f"{path}/{name}", 0o777)
        stream.listen()
        stream.setblocking(False)
        datagram.setblocking(False)
        try:
            await attacker.attack_in_python(
                """
import socket
attempt("connect", socket.socket(socket.AF_UNIX).connect, sys.argv[1] + "/stream")
attempt("datagram", socket.socket, socket.AF_UNIX, socket.SOCK_DGRAM)
attempt("raw", socket.socket, socket.AF_UNIX, socket.SOCK_RAW)
attempt("pair", socket.socketpair, socket.AF_UNIX, socket.SOCK_DGRAM)
left, right = socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET)
for end in (left, socket.socket(socket.AF_UNIX, socket.SOCK_SEQPACKET)):
    attempt("sendto", end.sendto, b"x", sys.argv[1] + "/datagram")
    try:
        end.sendmsg([b"x"], [], 0, sys.argv[1] + "/datagram")
    except OSError:
        pass
attempt("bind", socket.socket(socket.AF_UNIX).bind, "here")
""",
                str(path),
            )
            with pytest.raises(BlockingIOError):
                stream.accept()
            with pytest.raises(BlockingIOError):
                datagram.recv(10)
        finally:
            os.unlink(path / "stream")
            os.unlink(path / "datagram")
