"""Reaching the network, the host's sockets, or calls that would: by every family and every table of calls."""

from __future__ import annotations

import os
import platform
import secrets
import socket

import pytest

from .conftest import Attacker


async def test_no_family_of_sockets_but_the_local_one(attacker: Attacker) -> None:
    result = await attacker.attack_in_python(
        """
import socket
made = set()
for family in range(0, 50):
    for kind in (1, 2, 3, 4, 5, 6, 10):
        for protocol in (0, 1, 6, 17, 255):
            fd = libc.socket(family, kind, protocol)
            if fd >= 0:
                made.add((family, kind))
                os.close(fd)
            if libc.socketpair(family, kind, protocol, (ctypes.c_int * 2)()) == 0:
                made.add((family, kind))
print("MADE", sorted(made))
if made - {(1, 1), (1, 5)}:
    print("ESCAPED", made)
"""
    )
    assert "MADE [(1, 1), (1, 5)]" in result.stdout_text


async def test_abstract_sockets_of_the_host(attacker: Attacker) -> None:
    name = f"\0engine-{secrets.token_hex(8)}"
    with socket.socket(socket.AF_UNIX) as server:
        server.bind(name)
        server.listen()
        server.setblocking(False)
        await attacker.attack_in_python(
            """
import socket
for kind in (socket.SOCK_STREAM, socket.SOCK_SEQPACKET):
    attempt("connect", socket.socket(socket.AF_UNIX, kind).connect, "\\0" + sys.argv[1])
with open("/proc/net/unix") as file:
    if sys.argv[1] in file.read():
        print("ESCAPED: the host's sockets can be seen")
""",
            name[1:],
        )
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_addresses_of_the_host(attacker: Attacker) -> None:
    with socket.create_server(("127.0.0.1", 0)) as server:
        server.setblocking(False)
        port = server.getsockname()[1]
        await attacker.attack(
            f"""
            bash -c 'exec 3<>/dev/tcp/127.0.0.1/{port} && echo ESCAPED'
            bash -c 'echo x > /dev/udp/127.0.0.1/{port} && echo ESCAPED'
            ping -c1 -W1 127.0.0.1 && echo ESCAPED
            ip link set lo up && echo ESCAPED
            true
            """
        )
        with pytest.raises(BlockingIOError):
            server.accept()


async def test_rings_that_make_calls_unseen(attacker: Attacker) -> None:
    await attacker.attack_in_python(
        """
parameters = (ctypes.c_uint32 * 30)()
for number, name in ((425, "setup"), (426, "enter"), (427, "register")):
    result = call(number, 4, parameters, 0, 0, 0, 0)
    print(name, result)
    if result != -errno.EPERM:
        print("ESCAPED io_uring_" + name, result)
"""
    )


@pytest.mark.skipif(platform.machine() != "x86_64", reason="the other tables of calls are those of x86-64")
@pytest.mark.parametrize("table", ["i386", "x32"])
async def test_other_tables_of_calls(attacker: Attacker, table: str) -> None:
    """A filter that only knows the numbers of the ordinary table could be walked around."""
    result = await attacker.run(
        "python3",
        "-I",
        "-S",
        "-c",
        """
import ctypes, mmap, sys
libc = ctypes.CDLL(None, use_errno=True)
print("started", flush=True)
if sys.argv[1] == "x32":
    for number in (41, 53, 42, 425, 101):
        result = libc.syscall(number | 0x40000000, 2, 1, 0, 0)
        if result >= 0:
            print("ESCAPED", number, result)
else:
    # mov eax, 359 (socket); mov ebx, 2; mov ecx, 1; xor edx, edx; int 0x80; ret; with rbx kept
    code = bytes.fromhex("53b867010000bb02000000b90100000031d2cd805bc3")
    page = mmap.mmap(-1, 4096, prot=mmap.PROT_READ | mmap.PROT_WRITE | mmap.PROT_EXEC)
    page.write(code)
    address = ctypes.addressof(ctypes.c_char.from_buffer(page))
    result = ctypes.CFUNCTYPE(ctypes.c_int)(address)()
    print("ESCAPED" if result >= 0 else "refused", result)
""",
        table,
    )
    attacker.check(result)
    assert result.stdout_text.startswith("started")
    if table == "i386":
        assert result.exit_code in (159, 0, 139)  # killed by the filter, or a kernel without the table


async def test_keys_of_the_engines_session(attacker: Attacker) -> None:
    numbers = {"x86_64": (248, 249, 250), "aarch64": (217, 218, 219)}.get(platform.machine())
    if numbers is None:
        pytest.skip("no numbers for this machine")
    await attacker.attack_in_python(
        """
add_key, request_key, keyctl = map(int, sys.argv[1:])
for ring in (-1, -2, -3, -4, -5):
    if call(add_key, b"user", b"engine", b"x", 1, ring) >= 0:
        print("ESCAPED add_key", ring)
    if call(keyctl, 0, ring, 0, 0, 0) >= 0:
        print("ESCAPED keyctl", ring)
if call(request_key, b"user", b"engine", None, 0) >= 0:
    print("ESCAPED request_key")
""",
        *map(str, numbers),
    )


async def test_memory_and_queues_of_the_host(attacker: Attacker) -> None:
    """System V objects have no path that a mount could cover."""
    import ctypes

    libc = ctypes.CDLL(None, use_errno=True)
    key = 0x454E4700 + os.getpid() % 0xFF
    memory = libc.shmget(key, 4096, 0o1666)
    queue = libc.msgget(key, 0o1666)
    assert memory >= 0
    assert queue >= 0
    try:
        await attacker.attack_in_python(
            """
key = int(sys.argv[1])
for name in ("shmget", "msgget", "semget"):
    if getattr(libc, name)(key, 0, 0) >= 0:
        print("ESCAPED", name)
libc.shmat.restype = ctypes.c_void_p
for number in range(int(sys.argv[2]) + 1):
    if libc.shmat(number, None, 0) not in (None, 2**64 - 1, -1):
        print("ESCAPED shmat", number)
""",
            str(key),
            str(min(memory, 10_000)),
        )
    finally:
        libc.shmctl(memory, 0, None)
        libc.msgctl(queue, 0, None)
