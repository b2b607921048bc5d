"""The filters, run by an interpreter of their instructions: which calls pass, on both machines."""

from __future__ import annotations

import struct

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.sandbox.seccomp import MACHINES, Machine, metadata_filter, network_filter

ALLOW, EPERM, ENOSYS, KILL = "allow", "EPERM", "ENOSYS", "kill"
RESULTS = {0x7FFF0000: ALLOW, 0x00050001: EPERM, 0x00050026: ENOSYS, 0x80000000: KILL}
UNIX, INET, INET6, NETLINK, PACKET = 1, 2, 10, 16, 17
STREAM, DGRAM, RAW, SEQPACKET = 1, 2, 3, 5
CLOEXEC, NONBLOCK = 0o2000000, 0o4000
REFUSED = (
    *("connect", "accept", "accept4", "bind", "listen", "getpeername", "getsockname"),
    *("shutdown", "sendto", "sendmmsg", "recvmmsg", "getsockopt", "setsockopt"),
)
ALWAYS = (
    *("ptrace", "process_vm_readv", "process_vm_writev"),
    *("io_uring_setup", "io_uring_enter", "io_uring_register"),
    *("add_key", "request_key", "keyctl"),
)

machines = pytest.mark.parametrize("machine", MACHINES.values(), ids=MACHINES)


def run(program: bytes, number: int, *arguments: int, arch: int) -> str:
    """What the kernel would do with a call."""
    data = struct.pack("=iIQ6Q", number, arch, 0, *(*arguments, *[0] * 6)[:6])
    instructions = [struct.unpack_from("=HBBI", program, at) for at in range(0, len(program), 8)]
    accumulator, at = 0, 0
    while True:
        code, if_true, if_false, k = instructions[at]
        at += 1
        if code == 0x20:
            (accumulator,) = struct.unpack_from("=I", data, k)
        elif code == 0x54:
            accumulator &= k
        elif code == 0x15:
            at += if_true if accumulator == k else if_false
        elif code == 0x35:
            at += if_true if accumulator >= k else if_false
        elif code == 0x06:
            return RESULTS[k]
        else:
            raise AssertionError(f"instruction {code:#x}")


def call(program: bytes, machine: Machine, name: str, *arguments: int) -> str:
    return run(program, machine.numbers[name], *arguments, arch=machine.audit_arch)


@machines
def test_without_network_no_address_can_be_used(machine: Machine) -> None:
    program = network_filter("restricted", machine)
    assert {name: call(program, machine, name) for name in (*REFUSED, *ALWAYS)} == dict.fromkeys(
        (*REFUSED, *ALWAYS), EPERM
    )


@machines
@pytest.mark.parametrize("name", ["socket", "socketpair"])
def test_without_network_only_connected_unix_sockets_exist(machine: Machine, name: str) -> None:
    program = network_filter("restricted", machine)
    for flags in (0, CLOEXEC, NONBLOCK, CLOEXEC | NONBLOCK):
        for family in (UNIX, INET, INET6, NETLINK, PACKET):
            for kind in (STREAM, SEQPACKET, DGRAM, RAW):
                expected = ALLOW if family == UNIX and kind in (STREAM, SEQPACKET) else EPERM
                assert call(program, machine, name, family, kind | flags) == expected
                # The kernel looks at the lower half of each only, and so must the filter.
                assert call(program, machine, name, family | 7 << 32, kind | flags | 9 << 32) == expected


@machines
def test_through_a_proxy_only_internet_sockets_exist(machine: Machine) -> None:
    program = network_filter("proxy_routed", machine)
    expected = {UNIX: EPERM, INET: ALLOW, INET6: ALLOW, NETLINK: EPERM, PACKET: EPERM}
    assert {family: call(program, machine, "socket", family, STREAM) for family in expected} == expected
    assert call(program, machine, "socketpair", UNIX, STREAM) == EPERM
    assert call(program, machine, "socketpair", INET, STREAM) == ALLOW  # the kernel has none
    assert {call(program, machine, name) for name in REFUSED} == {ALLOW}
    assert {call(program, machine, name) for name in ALWAYS} == {EPERM}


@machines
def test_metadata_of_files_can_not_be_changed(machine: Machine) -> None:
    program = metadata_filter(machine)
    for name in ("fchmod", "fchmodat", "fchmodat2", "fchown", "fchownat", "utimensat", "setxattr", "file_setattr"):
        assert call(program, machine, name) == EPERM
    assert call(program, machine, "ioctl", 3, 0x40086602) == EPERM
    assert call(program, machine, "ioctl", 3, 0x401C5820 | 5 << 32) == EPERM
    assert call(program, machine, "ioctl", 3, 0x5401) == ALLOW
    assert call(program, machine, "socket", INET, STREAM) == ALLOW


@machines
@pytest.mark.parametrize("kind", ["restricted", "proxy_routed"])
def test_programs_of_another_machine_are_killed(machine: Machine, kind: str) -> None:
    program = network_filter("restricted" if kind == "restricted" else "proxy_routed", machine)
    for arch in (0x40000003, 0x40000028, 0):  # i386, arm
        assert run(program, 1, arch=arch) == KILL


def test_the_second_table_of_numbers_is_closed() -> None:
    machine = MACHINES["x86_64"]
    program = network_filter("restricted", machine)
    for number in machine.numbers.values():
        assert run(program, number | 0x40000000, INET, STREAM, arch=machine.audit_arch) == ENOSYS


@machines
@given(data=st.data())
def test_every_other_call_is_allowed(machine: Machine, data: st.DataObject) -> None:
    number = data.draw(st.integers(0, 500))
    arguments = data.draw(st.lists(st.integers(0, 2**64 - 1), min_size=6, max_size=6))
    handled = {machine.numbers[name] for name in (*REFUSED, *ALWAYS, "socket", "socketpair")}
    program = network_filter("restricted", machine)
    if number not in handled:
        assert run(program, number, *arguments, arch=machine.audit_arch) == ALLOW


@machines
def test_programs_fit_the_kernel(machine: Machine) -> None:
    for program in (network_filter("restricted", machine), metadata_filter(machine)):
        assert len(program) // 8 <= 4096
        for at in range(0, len(program), 8):
            code, if_true, if_false, _ = struct.unpack_from("=HBBI", program, at)
            assert at // 8 + max(if_true, if_false) < len(program) // 8, "a jump behind the end"
            assert code in (0x20, 0x54, 0x15, 0x35, 0x06)
