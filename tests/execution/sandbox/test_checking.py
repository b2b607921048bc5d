"""The look at the mounts before a command: what passes, and what somebody else has put there."""

from __future__ import annotations

import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path

import pytest

from engine.execution.sandbox.checking import HostMount, check_arguments, read_mounts
from engine.execution.sandbox.layout import Layout, Mount

HOST = (
    HostMount("8:1", "/", "/"),
    HostMount("8:2", "/vol", "/data"),
    HostMount("8:3", "/", "/data/ws/sub"),
    HostMount("0:9", "/", "/proc"),
)
LAYOUT = Layout(
    whole_disk=True,
    mounts=(
        Mount("/data/ws", "write", "/data/ws"),
        Mount("/data/ws/a", "write", "/data/ws/a", loose=True),
        Mount("/data/ws/a/b", "hidden_folder"),
        Mount("/home/me", "write", "/home/me"),
    ),
)
SOUND = (
    "8:1 / / ro",
    "8:2 /vol/ws /data/ws rw",
    "8:3 / /data/ws/sub rw",
    "8:2 /vol/ws/a /data/ws/a rw",
    "0:50 / /data/ws/a/b ro",
    "8:1 /home/me /home/me rw",
    "0:51 / /dev rw",
    "0:52 / /proc rw",
)


def look(
    layout: Layout, found: Sequence[str], tmp_path: Path, shell: str = "/bin/sh"
) -> subprocess.CompletedProcess[str]:
    """Run the check against mounts that are only described."""
    lines = []
    for line in found:
        device, root, point, option = line.split(" ")
        lines.append(f"9 8 {device} {root} {point} {option},nosuid - ext4 /dev/x rw\n")
    listing = tmp_path / "mountinfo"
    listing.write_text("".join(lines))
    arguments = check_arguments(layout, HOST)
    arguments[0] = shell
    arguments[2] = arguments[2].replace("/proc/self/mountinfo", str(listing)).replace("[ -x", "[ -n")
    return subprocess.run([*arguments, "echo", "ran", "a  b"], capture_output=True, text=True, check=False)


@pytest.mark.parametrize("shell", ["/bin/sh", "dash", "bash", "busybox"])
def test_mounts_as_they_have_to_be(tmp_path: Path, shell: str) -> None:
    if shutil.which(shell) is None or shell == "busybox":
        pytest.skip(f"no {shell}")
    result = look(LAYOUT, SOUND, tmp_path, shell)
    assert (result.returncode, result.stdout, result.stderr) == (0, "ran a  b\n", "")


@pytest.mark.parametrize(
    "added",
    [
        "8:1 /etc /data/ws/a rw",  # something else in its place
        "8:2 /vol/outside /data/outside rw",  # appeared somewhere else
        "8:2 /vol/ws/a /etc rw",
        "8:2 /vol/ws/a /data/ws/c rw",  # another part of the same place
        "8:1 /home/me /data/ws rw",
        "8:1 / / rw",
        "8:2 /vol/wsx /data/wsx rw",
        "8:3 / /mnt rw",
        "8:9 /vol/ws/a /data/ws/a rw",
        "8:2 /vol/a\\040b /data/a\\040b rw",
    ],
)
def test_a_writable_mount_that_must_not_be_there(tmp_path: Path, added: str) -> None:
    result = look(LAYOUT, [*SOUND, added], tmp_path)
    assert (result.returncode, result.stdout) == (126, "")
    assert "is not mounted as it has to be" in result.stderr


@pytest.mark.parametrize("missing", [SOUND[4], SOUND[3], SOUND[5]])
def test_a_mount_that_is_missing(tmp_path: Path, missing: str) -> None:
    result = look(LAYOUT, [line for line in SOUND if line != missing], tmp_path)
    assert result.returncode == 126
    assert missing.split(" ")[2] in result.stderr


def test_an_empty_view_is_nobodys(tmp_path: Path) -> None:
    layout = Layout(whole_disk=False, mounts=LAYOUT.mounts)
    found = ["0:60 / / rw", *SOUND[1:]]
    assert look(layout, found, tmp_path).returncode == 0
    assert look(LAYOUT, found, tmp_path).returncode == 126


def test_a_writable_root(tmp_path: Path) -> None:
    layout = Layout(
        whole_disk=True,
        mounts=(Mount("/", "write", "/"), Mount("/a", "write", "/a", loose=True), Mount("/a/b", "read")),
    )
    found = ["8:1 / / rw", "8:2 /vol /data rw", "8:1 /a /a rw", "8:1 /a/b /a/b ro"]
    assert look(layout, found, tmp_path).returncode == 0
    assert look(layout, [*found, "8:1 /a /c rw"], tmp_path).returncode == 126


def test_names_with_blanks_and_the_like(tmp_path: Path) -> None:
    layout = Layout(
        whole_disk=True,
        mounts=(Mount("/w s\\*[x]", "write", ""), Mount("/w s\\*[x]/a", "write", "", loose=True)),
    )
    name = r"/w\040s\134*[x]"
    found = ["8:1 / / ro", f"8:1 {name} {name} rw", f"8:1 {name}/a {name}/a rw"]
    assert look(layout, found, tmp_path).returncode == 0
    assert look(layout, [*found, f"8:1 /etc {name}/a rw"], tmp_path).returncode == 126


def test_placeholders_that_are_left_out_are_not_asked_for() -> None:
    layout = Layout(whole_disk=True, mounts=(Mount("/ws", "write", "/ws"), Mount("/ws/.git", "placeholder_folder")))
    assert check_arguments(layout, HOST)[-3:] == ["2", "/ws", "/ws/.git"]
    assert check_arguments(layout, HOST, without=["/ws/.git"])[-2:] == ["1", "/ws"]


def test_reading_mounts() -> None:
    text = "22 1 8:1 / / rw,relatime shared:1 - ext4 /dev/a rw\n23 22 0:5 /a\\040b /c rw - tmpfs t rw\n\n"
    assert read_mounts(text) == (HostMount("8:1", "/", "/"), HostMount("0:5", "/a\\040b", "/c"))
