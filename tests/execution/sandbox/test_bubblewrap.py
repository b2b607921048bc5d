"""A layout as arguments, in their order; what can't be passed."""

from __future__ import annotations

import pytest

from engine.execution.process import SpawnError
from engine.execution.sandbox.bubblewrap import (
    encode_arguments,
    environment_arguments,
    layout_arguments,
    network_arguments,
    session_arguments,
)
from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.layout import Layout, Mount


def words(layout: Layout, *, proc: bool = True, root: bool = False, without: tuple[str, ...] = ()) -> str:
    return " ".join(layout_arguments(layout, proc=proc, root=root, without=without))


def test_everything_in_its_order() -> None:
    layout = Layout(
        whole_disk=True,
        mounts=(
            Mount("/ws", "write", "/ws"),
            Mount("/ws/.codex", "placeholder_folder"),
            Mount("/ws/.git", "read", "/ws/.git"),
            Mount("/ws/a", "hidden_folder", open_below=True),
            Mount("/ws/key", "hidden_file"),
            Mount("/ws/plan", "placeholder_file"),
            Mount("/ws/a/b", "write", "/ws/a/b"),
            Mount("/ws/a/c", "hidden_folder"),
        ),
    )
    assert words(layout) == (
        "--ro-bind / / --dev /dev --proc /proc "
        "--bind /ws /ws "
        "--perms 555 --tmpfs /ws/.codex --remount-ro /ws/.codex "
        "--ro-bind /ws/.git /ws/.git "
        "--perms 111 --tmpfs /ws/a "
        "--ro-bind /dev/null /ws/key "
        "--ro-bind /dev/null /ws/plan "
        "--bind /ws/a/b /ws/a/b "
        "--perms 000 --tmpfs /ws/a/c "
        "--remount-ro /ws/a --remount-ro /ws/a/c"
    )


def test_an_empty_tree() -> None:
    layout = Layout(whole_disk=False, mounts=(Mount("/bin", "read", "/usr/bin"),))
    assert words(layout) == "--tmpfs / --dev /dev --proc /proc --ro-bind /usr/bin /bin"


def test_a_writable_root_does_not_cover_the_own_folders() -> None:
    layout = Layout(whole_disk=True, mounts=(Mount("/", "write", "/"), Mount("/etc", "read", "/etc")))
    assert words(layout) == "--ro-bind / / --bind / / --dev /dev --proc /proc --ro-bind /etc /etc"


def test_proc_is_left_out_where_it_can_not_be_mounted_and_sealed_for_root() -> None:
    layout = Layout(whole_disk=True, mounts=())
    assert words(layout, proc=False, root=True) == "--ro-bind / / --dev /dev"
    assert words(layout, root=True) == "--ro-bind / / --dev /dev --proc /proc --remount-ro /proc"


def test_placeholders_that_nobody_can_create_are_left_out() -> None:
    layout = Layout(
        whole_disk=True, mounts=(Mount("/ws/.git", "placeholder_folder"), Mount("/ws/.codex", "hidden_file"))
    )
    assert words(layout, without=("/ws/.git", "/ws/.codex")).endswith("--ro-bind /dev/null /ws/.codex")
    assert ".git" not in words(layout, without=("/ws/.git",))


def test_namespaces() -> None:
    offline = session_arguments(network=False)
    assert set(offline) - set(session_arguments(network=True)) == {"--unshare-net"}
    assert {"--new-session", "--die-with-parent", "--unshare-user", "--unshare-pid", "--unshare-ipc"} <= set(offline)
    for arguments in (offline, network_arguments()):
        assert arguments[arguments.index("--cap-drop") + 1] == "ALL"
    assert "--unshare-pid" not in network_arguments()


def test_the_environment() -> None:
    assert list(environment_arguments({"A": "1", "B": ""})) == ["--setenv", "A", "1", "--setenv", "B", ""]


@pytest.mark.parametrize("env", [{"": "x"}, {"A=B": "x"}, {"A": "\0"}, {"A\0": "x"}])
def test_what_can_not_be_a_variable(env: dict[str, str]) -> None:
    with pytest.raises(SpawnError):
        list(environment_arguments(env))


def test_encoding() -> None:
    assert encode_arguments(["--bind", "/a b\n", "/\udcff"], command_length=1) == b"--bind\0/a b\n\0/\xff\0"
    assert encode_arguments([], command_length=1) == b""
    with pytest.raises(SpawnError):
        encode_arguments(["a\0b"], command_length=1)


def test_too_many_arguments_are_told_from_too_many_files() -> None:
    encode_arguments(["x"] * 8990, command_length=10)
    with pytest.raises(SandboxPolicyError, match="9001 arguments, but bubblewrap accepts 9000"):
        encode_arguments(["x"] * 8991, command_length=10)
