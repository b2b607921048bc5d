"""Device files that commands in a sandbox can use, but not change.

Also runs in the supervisor process, where every module costs start-up time: nothing but cheap built-in ones here.
"""

from __future__ import annotations

import os


class SealedDevices:
    """A mount namespace beside our own in which device files are read-only: they can be used, but not changed.

    A sandbox binds /dev/null and its like from the host, and a command that runs as root there owns them. Nothing
    happens where we are not root, or may not do this; then whoever has no rights over the host's files has none there.
    """

    FILES = (b"null", b"zero", b"full", b"random", b"urandom", b"tty")
    CLONE_NEWNS = 0x20000
    MS_RDONLY, MS_REMOUNT, MS_BIND, MS_REC, MS_SLAVE = 1, 32, 4096, 16384, 1 << 19

    def __init__(self) -> None:
        self.spaces: tuple[int, int] | None = None  # fds: the ordinary one, the one with sealed devices
        self.tried = False

    def enter(self) -> None:
        if not self.tried:
            self.tried = True
            if os.geteuid() == 0 and os.path.exists("/proc/self/ns/mnt"):
                self.make()
        if self.spaces is not None:
            self.libc.setns(self.spaces[1], self.CLONE_NEWNS)

    def leave(self) -> None:
        if self.spaces is not None:
            self.libc.setns(self.spaces[0], self.CLONE_NEWNS)

    def make(self) -> None:
        import ctypes

        self.libc = ctypes.CDLL(None, use_errno=True)
        ordinary = os.open("/proc/self/ns/mnt", os.O_RDONLY)
        if self.libc.unshare(self.CLONE_NEWNS) != 0:
            os.close(ordinary)
            return
        mount = self.libc.mount
        mount.argtypes = [ctypes.c_char_p, ctypes.c_char_p, ctypes.c_char_p, ctypes.c_ulong, ctypes.c_char_p]
        failed = mount(None, b"/", None, self.MS_SLAVE | self.MS_REC, None)  # what the host mounts appears here too
        for name in self.FILES:
            path = b"/dev/" + name
            if os.path.exists(path):
                failed |= mount(path, path, None, self.MS_BIND, None)
                failed |= mount(None, path, None, self.MS_REMOUNT | self.MS_BIND | self.MS_RDONLY, None)
        self.spaces = ordinary, os.open("/proc/self/ns/mnt", os.O_RDONLY)
        self.leave()
        if failed:
            for fd in self.spaces:
                os.close(fd)
            self.spaces = None
