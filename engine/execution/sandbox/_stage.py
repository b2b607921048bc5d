"""Becomes a command that is held by Landlock and system-call filters. Run as `python -I -S -c SOURCE FD`.

Its file descriptor holds, between NULs: three masks of what Landlock handles and the size of their struct, the filters
as hexadecimal digits, the rules as mask and path, the arguments, and the environment; the lists begin with their
lengths. Nothing is imported that a start does not need.
"""

from __future__ import annotations

import ctypes
import os
import sys

PR_SET_PDEATHSIG, PR_SET_SECCOMP, PR_CAPBSET_DROP, PR_SET_NO_NEW_PRIVS = 1, 22, 24, 38
CREATE_RULESET, ADD_RULE, RESTRICT_SELF = 444, 445, 446
SIGKILL = 9
FILE_ACCESS = 0b1100_0000_0000_0111  # what makes sense for something that is no folder

libc = ctypes.CDLL(None, use_errno=True)


def check(result: int, what: str) -> int:
    if result < 0:
        number = ctypes.get_errno()
        raise OSError(number, f"{what}: {os.strerror(number)}")
    return result


def main() -> None:
    with open(int(sys.argv[1]), "rb") as file:
        fields = file.read().split(b"\0")
    handled = [int(field) for field in fields[:3]]
    size = int(fields[3])
    rest = iter(fields[4:])
    filters = [bytes.fromhex(next(rest).decode()) for _ in range(int(next(rest)))]
    rules = [(int(next(rest)), next(rest)) for _ in range(int(next(rest)))]
    argv = [next(rest) for _ in range(int(next(rest)))]
    env = dict(field.split(b"=", 1) for field in rest)

    check(libc.prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0), "PR_SET_PDEATHSIG")
    check(libc.prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0), "PR_SET_NO_NEW_PRIVS")
    drop_capabilities()
    if any(handled):
        restrict(handled, size, rules)
    for program in filters:
        install(program)
    try:
        os.execvpe(argv[0], argv, env)
    except OSError as exc:
        raise OSError(exc.errno, f"{os.fsdecode(argv[0])}: {exc.strerror}") from None


def drop_capabilities() -> None:
    """root keeps what it owns, and nothing else; not after an exec either."""
    capability = 0
    while libc.prctl(PR_CAPBSET_DROP, capability, 0, 0, 0) == 0:
        capability += 1
    header = (ctypes.c_uint32 * 2)(0x2008_0522, 0)
    check(libc.capset(header, (ctypes.c_uint32 * 6)()), "capset")


def restrict(handled: list[int], size: int, rules: list[tuple[int, bytes]]) -> None:
    attributes = (ctypes.c_uint64 * 3)(*handled)
    ruleset = check(libc.syscall(CREATE_RULESET, attributes, ctypes.c_size_t(size), 0), "landlock_create_ruleset")
    for access, path in rules:
        try:
            fd = os.open(path, os.O_PATH | os.O_NOFOLLOW)
        except FileNotFoundError:
            continue
        is_folder = os.path.isdir(f"/proc/self/fd/{fd}")
        granted = (access if is_folder else access & FILE_ACCESS) & handled[0]
        beneath = (ctypes.c_uint32 * 3)(granted & 0xFFFF_FFFF, granted >> 32, fd)  # 64 bits and 32, packed
        check(libc.syscall(ADD_RULE, ruleset, 1, beneath, 0), os.fsdecode(path))
        os.close(fd)
    check(libc.syscall(RESTRICT_SELF, ruleset, 0), "landlock_restrict_self")
    os.close(ruleset)


def install(program: bytes) -> None:
    class Program(ctypes.Structure):
        _fields_ = (("length", ctypes.c_ushort), ("instructions", ctypes.c_char_p))

    check(libc.prctl(PR_SET_SECCOMP, 2, ctypes.byref(Program(len(program) // 8, program)), 0, 0), "PR_SET_SECCOMP")


try:
    main()
except Exception as exc:
    sys.stderr.write(f"sandbox: {getattr(exc, 'strerror', None) or exc}\n")
    sys.exit(126)
