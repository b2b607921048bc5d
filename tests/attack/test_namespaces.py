"""Undoing the mounts: as root of a namespace of one's own, by other namespaces, by older interfaces."""

from __future__ import annotations

import pytest

from .conftest import Attacker

# `unshare` gives full rights over a namespace that the attacker owns.
NESTED = {
    "as nobody in it": "unshare -U",
    "as root in it": "unshare -Ur",
    "with mounts of its own": "unshare -Urm --propagation unchanged",
    "with mounts of its own, unmapped": "unshare -Um --propagation unchanged",
    "with everything": "unshare -Urmnpuif --mount-proc",
}
TRICKS = {
    "taking a cover off": """
        umount .git
        umount -l .git
        umount .codex
        umount -l .
        umount -l /proc
        echo x > .git/config
    """,
    "making it writable": """
        mount -o remount,rw,bind .git
        mount -o remount,rw,bind /
        mount -o remount,rw /
        echo x > .git/config
        echo x > ../outside/file
    """,
    "binding what lies around it": """
        mkdir m
        mount --bind .. m && echo x > m/outside/file
        mount --bind . m && echo x > m/.git/config
        mount --rbind / m && echo x > "m$(realpath .)/../outside/file"
    """,
    "moving it away": """
        mkdir m
        mount --move .git m
        mount --move .codex m
        mount --make-private /
        echo x > .git/config
    """,
    "an overlay": """
        mkdir u w m
        mount -t overlay o -o lowerdir=.git,upperdir=u,workdir=w m
        mount -t overlay o -o lowerdir=../outside,upperdir=../outside,workdir=w m && echo x > m/file
    """,
    "other file systems": """
        mkdir m
        mount -t proc p m && echo x > m/sys/vm/swappiness && echo ESCAPED proc
        mount -t sysfs s m && echo x > m/power/state && echo ESCAPED sys
        mount -t devtmpfs d m && echo ESCAPED devtmpfs
        mount -o ro /dev/vda m && echo ESCAPED disk
    """,
    "pivoting": """
        mkdir -p m/old
        mount -t tmpfs t m && mkdir m/old && pivot_root m m/old
        chroot ..
        chroot . /bin/sh -c 'echo x > /../outside/file'
    """,
}


@pytest.mark.parametrize("nested", NESTED.values(), ids=NESTED)
@pytest.mark.parametrize("trick", TRICKS.values(), ids=TRICKS)
async def test_no_mount_comes_off(attacker: Attacker, nested: str, trick: str) -> None:
    await attacker.attack(f'sh -c "$1" </dev/null; {nested} sh -c "$1" </dev/null; true', trick)


async def test_namespaces_can_not_be_entered(attacker: Attacker) -> None:
    await attacker.attack_in_python(
        """
CLONE_NEWNS, CLONE_NEWUSER, CLONE_NEWNET, CLONE_NEWPID = 0x20000, 0x10000000, 0x40000000, 0x20000000
for pid in ("1", "self"):
    for name in os.listdir(f"/proc/{pid}/ns"):
        fd = os.open(f"/proc/{pid}/ns/{name}", os.O_RDONLY)
        if name not in ("time", "time_for_children") and libc.setns(fd, 0) == 0:
            print("ESCAPED setns", pid, name)
# Without a user namespace of its own it has no right to make one of another kind.
for flag in (CLONE_NEWNS, CLONE_NEWNET, CLONE_NEWPID):
    if libc.unshare(flag) == 0:
        print("ESCAPED unshare", hex(flag))
# NS_GET_USERNS and NS_GET_PARENT lead no further than the own user namespace.
import fcntl
for request in (0xB701, 0xB702):
    for name in ("user", "mnt", "pid"):
        fd = os.open(f"/proc/self/ns/{name}", os.O_RDONLY)
        try:
            outer = fcntl.ioctl(fd, request)
        except OSError:
            continue
        if libc.setns(outer, 0) == 0:
            print("ESCAPED setns to", name, request)
"""
    )


async def test_the_newer_mount_interface(attacker: Attacker) -> None:
    await attacker.attack_in_python(
        """
AT_FDCWD, OPEN_TREE_CLONE, AT_RECURSIVE, AT_EMPTY_PATH = -100, 1, 0x8000, 0x1000
open_tree, move_mount, fsopen, mount_setattr = 428, 429, 430, 442
attributes = (ctypes.c_uint64 * 4)(0, 1, 0, 0)  # clear MOUNT_ATTR_RDONLY
def tricks(where):
    for path in (b".git", b"..", b"/"):
        for flags in (OPEN_TREE_CLONE, OPEN_TREE_CLONE | AT_RECURSIVE):
            fd = call(open_tree, AT_FDCWD, path, flags)
            if fd < 0:
                continue
            call(mount_setattr, fd, b"", AT_EMPTY_PATH | AT_RECURSIVE, attributes, 32)
            for name in ("config", "outside/file", "etc/escaped"):
                try:
                    os.close(os.open(name, os.O_WRONLY, dir_fd=fd))
                    print("ESCAPED open_tree", where, path, name)
                except OSError:
                    pass
    for path in (b".git", b"/", b"/proc/sys", b"/dev/null"):
        if call(mount_setattr, AT_FDCWD, path, 0, attributes, 32) == 0 and path != b"/dev/null":
            print("ESCAPED mount_setattr", where, path)
    for kind in (b"proc", b"sysfs", b"devtmpfs", b"tmpfs"):
        if call(fsopen, kind, 0) >= 0 and where == "outside":
            print("ESCAPED fsopen", kind)
tricks("outside")
if libc.unshare(0x10000000 | 0x20000) == 0:
    tricks("nested")
"""
    )
