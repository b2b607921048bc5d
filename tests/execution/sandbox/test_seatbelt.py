"""Profiles for macOS: read back and asked about the paths that the policy decides."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

import attrs
import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.execution.sandbox.errors import SandboxPolicyError
from engine.execution.sandbox.layout import Layout, Mount, arrange
from engine.execution.sandbox.plans import seatbelt_for
from engine.execution.sandbox.resolving import Resolver, is_below
from engine.execution.sandbox.rules import file_system_rules
from engine.execution.sandbox.seatbelt import SeatbeltProfile, glob_expressions, seatbelt_profile
from engine.permissions.access import compile_policy
from engine.permissions.canonical import absolute
from engine.permissions.globs import compile_glob
from engine.permissions.memory_view import MemoryView
from engine.permissions.whole_disk import has_full_disk_write
from engine.protocol.profile_decoding import decode_file_system_policy
from engine.protocol.profiles import Access
from tests.vectors.permission_places import described as layout_described

from .disks import MemoryDisk, described
from .test_layout import ENTRIES, PATHS, policy

Form = str | list["Form"]


# --- a reader of profiles, as sandbox-exec is one ------------------------------------------------


def read(text: str) -> list[Form]:
    """The forms of a profile: words, strings (as they are written) and lists."""
    stack: list[list[Form]] = [[]]
    for token in re.findall(r'\(|\)|#?"[^"]*"|[^\s()]+', text):
        if token == "(":
            stack.append([])
        elif token == ")":
            done = stack.pop()
            stack[-1].append(done)
        else:
            stack[-1].append(token)
    assert len(stack) == 1, "brackets that don't close"
    return stack[0]


@attrs.frozen
class Reading:
    """A profile that answers: the last rule that matches an operation and a path decides."""

    rules: Sequence[tuple[bool, list[str], list[list[Form]]]]
    parameters: dict[str, str]

    @classmethod
    def of(cls, profile: SeatbeltProfile) -> Reading:
        rules = []
        for form in read(profile.text):
            assert isinstance(form, list)
            if form[0] in ("allow", "deny"):
                operations = [part for part in form[1:] if isinstance(part, str)]
                rules.append((form[0] == "allow", operations, [part for part in form[1:] if isinstance(part, list)]))
        return cls(rules, dict(profile.parameters))

    def allows(self, operation: str, path: str = "") -> bool:
        decided = False
        for allowed, operations, filters in self.rules:
            if any(self._covers(name, operation) for name in operations) and (
                not filters or any(self._matches(found, path) for found in filters)
            ):
                decided = allowed
        return decided

    @staticmethod
    def _covers(name: str, operation: str) -> bool:
        return name in ("default", operation) or (name.endswith("*") and operation.startswith(name[:-1]))

    def _matches(self, found: list[Form], path: str) -> bool:
        kind, value = found[0], found[1]
        if kind == "regex":
            assert isinstance(value, str)
            return re.search(value[2:-1], path) is not None
        if kind in ("subpath", "literal"):
            place = self.parameters[str(value[1])[1:-1]] if isinstance(value, list) else value[1:-1]
            return path == place or (kind == "subpath" and is_below(path, place))
        return False

    def access(self, path: str) -> str:
        if not self.allows("file-read-data", path):
            assert not self.allows("file-write-data", path)
            return "none"
        return "write" if self.allows("file-write-data", path) else "read"


# --- what it says ------------------------------------------------------------------------------


@given(st.lists(PATHS, max_size=6), st.lists(ENTRIES, max_size=6), st.sampled_from(["read", "write", None]))
def test_it_says_of_every_path_what_the_policy_says(
    folders: list[str], entries: list[tuple[str, Access]], root: Access | None
) -> None:
    view = MemoryView(directories=frozenset(folders))
    made = policy(*([(":root", root)] if root else []), *entries)
    if has_full_disk_write(made):
        return
    rules = file_system_rules(made, "/a", view)
    reading = Reading.of(seatbelt_profile(arrange(rules, MemoryDisk(view)), network=False))
    decided = compile_policy(made, "/a", view)
    kept = {path for writable in rules.writable for path in writable.read_only_subpaths}
    for path in sorted(view._directories - {"/"}):
        expected = "write" if decided.can_write(path) else "read" if decided.can_read(path) else "none"
        if (expected, reading.access(path)) != ("write", "read") or not any(
            path == place or is_below(path, place) for place in kept
        ):
            assert reading.access(path) == expected


VECTORS = Path(__file__).parents[2] / "vectors" / "permissions"
CASES = json.loads((VECTORS / "access.json").read_text(encoding="utf-8"))
ORDER = ("none", "read", "write")


@pytest.mark.parametrize("case", CASES, ids=[case["id"] for case in CASES])
def test_it_says_of_the_paths_of_the_golden_cases_what_they_say(case: dict[str, Any]) -> None:
    """Never more than the case has it; and just that of what is there and no link leads to."""
    given_in = case["in"]
    layouts = json.loads((VECTORS / "layouts.json").read_text(encoding="utf-8"))
    view = layout_described(layouts[case["layout"]], given_in["env"])
    made = decode_file_system_policy(given_in["policy"])
    if made.kind != "restricted" or has_full_disk_write(made):
        pytest.skip("a policy that restricts no files")
    rules = file_system_rules(made, given_in["cwd"], view)
    try:
        layout = arrange(rules, MemoryDisk(view))
    except SandboxPolicyError as exc:
        pytest.skip(f"nothing runs under it: {exc}")
    reading = Reading.of(seatbelt_for(rules, layout, MemoryDisk(view), network=False))
    kept = {path for writable in rules.writable for path in writable.read_only_subpaths}
    for row in case["out"]:
        path = absolute(row["path"], view, given_in["cwd"])
        found = Resolver(MemoryDisk(view)).resolve(path)
        if found.links or any(compile_glob(glob).matches(path) for glob in rules.unreadable_globs):
            continue
        expected = "write" if row["can_write"] else "read" if row["can_read"] else "none"
        if expected == "write" and any(path == place or is_below(path, place) for place in kept):
            expected = "read"
        if path in ("/dev/null", "/dev/tty") or is_below(path, "/usr/lib"):
            continue
        assert ORDER.index(reading.access(path)) <= ORDER.index(expected), row
        assert reading.access(path) == expected or not view.is_there(path), row


def test_what_is_missing_and_protected_can_not_be_created() -> None:
    layout = Layout(
        whole_disk=True,
        mounts=(Mount("/ws", "write", "/ws"), Mount("/ws/.git", "placeholder_folder"), Mount("/ws/key", "hidden_file")),
    )
    reading = Reading.of(seatbelt_profile(layout, network=False))
    found = {path: reading.access(path) for path in ("/ws/new", "/ws/.git", "/ws/.git/config", "/ws/key", "/etc/hosts")}
    assert found == {
        "/ws/new": "write",
        "/ws/.git": "read",
        "/ws/.git/config": "read",
        "/ws/key": "none",
        "/etc/hosts": "read",
    }


def test_what_is_denied_and_comes_into_being_later_is_denied() -> None:
    """Also by its real name, where a link leads to its folder."""
    view = described("/srv/real/", "/ws/", links={"/srv/link": "/srv/real"})
    rules = file_system_rules(policy((":root", "read"), ("/srv/link/key", "none"), ("/srv/x", "none")), "/ws", view)
    reading = Reading.of(seatbelt_for(rules, arrange(rules, MemoryDisk(view)), MemoryDisk(view), network=False))
    found = {path: reading.access(path) for path in ("/srv/real/key", "/srv/real/other", "/srv/x", "/srv/x/y", "/srv")}
    assert found == {
        "/srv/real/key": "none",
        "/srv/real/other": "read",
        "/srv/x": "none",
        "/srv/x/y": "none",
        "/srv": "read",
    }


def test_what_has_a_rule_keeps_its_name() -> None:
    layout = Layout(whole_disk=True, mounts=(Mount("/ws", "write", "/ws"), Mount("/ws/a", "write", "/ws/a")))
    reading = Reading.of(seatbelt_profile(layout, network=False))
    unlinkable = {path: reading.allows("file-write-unlink", path) for path in ("/ws", "/ws/a", "/ws/a/b")}
    assert unlinkable == {"/ws": False, "/ws/a": False, "/ws/a/b": True}


def test_the_network() -> None:
    layout = Layout(whole_disk=True, mounts=())
    for network in (True, False):
        reading = Reading.of(seatbelt_profile(layout, network=network))
        assert reading.allows("network-outbound") == network
        assert reading.allows("process-exec")
        assert not reading.allows("file-write-data", "/etc/hosts")
        assert reading.access("/dev/null") == "write"


def test_everything_may_be_written() -> None:
    reading = Reading.of(seatbelt_profile(None, network=False))
    assert (reading.access("/etc/hosts"), reading.allows("network-outbound")) == ("write", False)


def test_an_empty_view_still_runs_programs() -> None:
    reading = Reading.of(
        seatbelt_profile(Layout(whole_disk=False, mounts=(Mount("/ws", "read", "/ws"),)), network=False)
    )
    paths = ("/usr/lib/dyld", "/ws/a", "/Users/me/secret")
    assert [reading.access(path) for path in paths] == ["read", "read", "none"]


def test_arguments() -> None:
    profile = seatbelt_profile(
        Layout(whole_disk=True, mounts=(Mount('/a "b" (c)', "write", '/a "b" (c)'),)), network=False
    )
    argv = profile.argv(["ls", "-l"])
    assert argv[:2] == ["/usr/bin/sandbox-exec", "-p"]
    assert argv[3:] == ['-DPATH_0=/a "b" (c)', "--", "ls", "-l"]
    assert '"b"' not in profile.text
    assert Reading.of(profile).access('/a "b" (c)/x') == "write"


# --- globs -------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("glob", "matching", "others"),
    [
        ("/ws/**/*.env", ["/ws/.env", "/ws/a/b/c.env"], ["/ws/.envx", "/other/.env", "/ws/a.env/b"]),
        ("/ws/*", ["/ws/a"], ["/ws", "/ws/a/b"]),
        ("/ws/**", ["/ws/a", "/ws/a/b"], ["/ws", "/wsx/a"]),
        ("/ws/[!a]?", ["/ws/bc"], ["/ws/ac", "/ws/b"]),
        ("/ws/{a,b/c}.env", ["/ws/a.env", "/ws/b/c.env"], ["/ws/b.env", "/ws/a.env/b/c.env"]),
        ("/ws/a.b", ["/ws/a.b"], ["/ws/axb"]),
        ("/ws/[", ["/ws/["], ["/ws/a"]),
    ],
)
def test_globs_become_expressions(glob: str, matching: list[str], others: list[str]) -> None:
    profile = seatbelt_profile(Layout(whole_disk=True, mounts=()), unreadable_globs=[glob], network=False)
    reading = Reading.of(profile)
    assert {path: reading.access(path) for path in matching} == dict.fromkeys(matching, "none")
    assert {path: reading.access(path) for path in others} == dict.fromkeys(others, "read")


PIECES = st.sampled_from(["a", "b", ".", "*", "?", "**", "/", "[ab]", "[!a]", "{a,b}", "{a/b,c}", "\\*", '"', "é"])
LETTERS = st.sampled_from(["a", "b", ".", "*", '"', "é", "/"])


def globs() -> Iterator[st.SearchStrategy[str]]:
    yield st.lists(PIECES, min_size=1, max_size=6).map(lambda pieces: "/a/" + "".join(pieces))


@given(next(globs()), st.lists(LETTERS, min_size=1, max_size=6).map(lambda letters: "/a/" + "".join(letters)))
def test_expressions_never_match_less_than_the_glob(glob: str, path: str) -> None:
    path = "/" + "/".join(part for part in path.split("/") if part)
    if compile_glob(glob).matches(path):
        assert any(re.search(expression, path) for expression in glob_expressions(glob))
