"""Profile tables: every rule for keys, nested keys and globs, warnings, and inheritance."""

from __future__ import annotations

from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from engine.permissions.inheritance import merged_profile
from engine.permissions.memory_view import MemoryView
from engine.permissions.named import NamedProfile, NamedProfileError, built_in, compile_named
from engine.permissions.profiles import read_only, workspace_write
from engine.protocol.codec import encode
from engine.protocol.profiles import PROJECT_ROOTS_PREFIX, DisabledProfile
from tests.protocol.wire_values import json_values


def compiled(filesystem: dict[str, Any], *, inherited: bool = False, **more: Any) -> NamedProfile:
    return compile_named({"filesystem": filesystem, **more}, id="dev", cwd="/p", home="/home/u", inherited=inherited)


def rows(filesystem: dict[str, Any], *, inherited: bool = False) -> list[str]:
    made = []
    for entry in compiled(filesystem, inherited=inherited).file_system.entries:
        path = encode(entry.path)
        value = path.get("value", {})
        what = path.get("path") or path.get("pattern") or ":".join(str(part) for part in value.values())
        made.append(f"{path['type'][0]} {what} {entry.access}")
    return made


def test_keys() -> None:
    assert rows(
        {
            "~/x//y": "deny",
            ":tmpdir": "write",
            ":root": "read",
            ":minimal": "read",
            ":workspace_roots": "none",
            ":soon": "read",
            "~": "read",
            "/a/../b/": "write",
            "/c/**": "read",
            "/**": "read",
            "/d/**": "none",
            "/e/*.k": "none",
        }
    ) == [
        "p / read",
        "p /b write",
        "p /c read",
        "g /d/** none",
        "g /e/*.k none",
        "s minimal read",
        "s root read",
        "s unknown::soon read",
        "s tmpdir write",
        "s project_roots none",
        "p /home/u read",
        "p /home/u/x/y none",
    ]


def test_nested_keys() -> None:
    assert rows(
        {
            "/a": {".": "write", "b/./c": "read", "d/**": "read", "*.k": "none"},
            "/g[": {"x": "read"},
            ":root": {".": "read"},
            ":soon": {"x": "read", "y/**": "none"},
            ":workspace_roots": {"**/*.env": "none", "docs": "read", ".": "write"},
        }
    ) == [
        "g /a/*.k none",
        "p /a write",
        "p /a/b/c read",
        "p /a/d read",
        "p /g[/x read",
        "s root read",
        "s unknown::soon:x read",
        "s unknown::soon:y none",
        f"g {PROJECT_ROOTS_PREFIX}**/*.env none",
        "s project_roots write",
        "s project_roots:docs read",
    ]


@pytest.mark.parametrize(
    ("filesystem", "rule", "path"),
    [
        ({"rel": "read"}, "not_absolute", ("filesystem", "rel")),
        ({"rel": {".": "read"}}, "not_absolute", ("filesystem", "rel")),
        ({"~x": "read"}, "not_absolute", ("filesystem", "~x")),
        ({":root*": "none"}, "not_absolute", ("filesystem", ":root*")),
        ({":root": {"a": "read"}}, "no_nested", ("filesystem", ":root")),
        ({":minimal": {"a": "none"}}, "no_nested", ("filesystem", ":minimal")),
        ({":tmpdir": {"a/**": "write"}}, "no_nested", ("filesystem", ":tmpdir")),
        ({"/a": {"": "read"}}, "bad_subpath", ("filesystem", "/a", "")),
        ({"/a": {"./b": "read"}}, "bad_subpath", ("filesystem", "/a", "./b")),
        ({"/a": {"b/..": "read"}}, "bad_subpath", ("filesystem", "/a", "b/..")),
        ({"/a": {"/b": "read"}}, "bad_subpath", ("filesystem", "/a", "/b")),
        ({"/a": {"../*.k": "none"}}, "bad_subpath", ("filesystem", "/a", "../*.k")),
        ({"/a/*.k": "read"}, "glob_access", ("filesystem", "/a/*.k")),
        ({"/a/**/b/**": "write"}, "glob_access", ("filesystem", "/a/**/b/**")),
        ({"/a": {"*.k": "read"}}, "glob_access", ("filesystem", "/a")),
        ({":tmpdir": {"*.k": "none"}}, "glob_access", ("filesystem", ":tmpdir")),
        ({":soon": {"*.k": "none"}}, "glob_access", ("filesystem", ":soon")),
        ({"glob_scan_max_depth": 0}, "depth_zero", ("filesystem", "glob_scan_max_depth")),
        ({"glob_scan_max_depth": True}, "malformed", ("filesystem", "glob_scan_max_depth")),
        ({"/a": "append"}, "malformed", ("filesystem", "/a")),
        ({"/a": {"b": 1}}, "malformed", ("filesystem", "/a", "b")),
    ],
)
def test_broken_rules_name_their_key(filesystem: dict[str, Any], rule: str, path: tuple[str, ...]) -> None:
    with pytest.raises(NamedProfileError) as caught:
        compiled(filesystem)
    assert (caught.value.rule, caught.value.path) == (rule, path)
    assert path[-1] in str(caught.value) or rule == "malformed" or not path[-1]


def kinds(filesystem: dict[str, Any]) -> list[str]:
    return [warning.kind for warning in compiled(filesystem).warnings]


def test_warnings() -> None:
    assert kinds({"/a": "read"}) == []
    assert kinds({}) == kinds({"glob_scan_max_depth": 2}) == ["no_entries"]
    assert kinds({":soon": "read", ":later": {"x": "read"}}) == ["unknown_special", "unknown_special"]
    assert kinds({"/a/**": "read"}) == ["unsupported_glob"]
    assert kinds({"/a/**": "none", "/b": {"**/*.k": "none"}, "/c/*": "none"}) == ["unbounded_glob"] * 2
    assert kinds({"/a/**": "none", "glob_scan_max_depth": 3}) == []
    assert "`/b/**/*.k`" in compiled({"/b": {"**/*.k": "none"}}).warnings[0].message


def test_roots_and_network() -> None:
    made = compiled({"/a": "read"}, workspace_roots={"~/w": True, "rel": True, "/p/rel": True, "/off": False})
    assert made.workspace_roots == ("/p/rel", "/home/u/w")
    assert made.network == "restricted"
    assert compiled({}, network={"enabled": True, "proxy": 1}).network == "enabled"
    assert compiled({}, network={"enabled": "yes"}).network == "restricted"
    with pytest.raises(NamedProfileError):
        compiled({}, workspace_roots={"/a": "yes"})
    with pytest.raises(NamedProfileError):
        compiled({}, network=True)


def test_built_in_profiles() -> None:
    view = MemoryView()
    assert built_in(":read-only", view) == read_only()
    assert built_in(":workspace", view) == workspace_write(view)
    assert built_in(":danger-full-access", view) == DisabledProfile()
    assert built_in(":other", view) is None


@given(st.dictionaries(st.text(max_size=6), json_values, max_size=4))
def test_any_table_compiles_or_breaks_a_rule(filesystem: dict[str, Any]) -> None:
    try:
        compiled(filesystem)
    except NamedProfileError as error:
        place = error.path[0]
    else:
        place = "filesystem"
    assert place == "filesystem"


def test_children_merge_with_their_parents() -> None:
    profiles: dict[str, Any] = {
        "base": {
            "description": "b",
            "filesystem": {"/a": "read", "/b": {"x": "read", "y": "read"}, "/c": {"x": "read"}},
            "network": {"enabled": True},
        },
        "kid": {"extends": "base", "filesystem": {"/a": {"z": "write"}, "/b": {"y": "write"}, "/c": "none"}},
        "grandchild": {"extends": "kid", "network": {"enabled": False}},
    }
    table, parent = merged_profile(profiles, "grandchild")
    assert parent == "kid"
    assert table["filesystem"] == {"/a": {"z": "write"}, "/b": {"x": "read", "y": "write"}, "/c": "none"}
    assert table["network"] == {"enabled": False}
    assert merged_profile(profiles, "base") == (profiles["base"], None)


def test_built_in_parents_know_one_token_more() -> None:
    table, parent = merged_profile({"kid": {"extends": ":workspace"}}, "kid")
    assert parent == ":workspace"
    assert rows(dict(table["filesystem"]), inherited=True) == [  # type: ignore[call-overload]
        "s root read",
        "s slash_tmp write",
        "s tmpdir write",
        "s project_roots write",
    ]
    with pytest.raises(NamedProfileError, match=":slash_tmp"):
        compiled({":slash_tmp": {"x": "read"}}, inherited=True)


@pytest.mark.parametrize(
    ("extends", "rule"),
    [
        ("kid", "cycle"),
        ("missing", "undefined_parent"),
        (":danger-full-access", "unsupported_parent"),
        (1, "malformed"),
    ],
)
def test_wrong_parents(extends: object, rule: str) -> None:
    with pytest.raises(NamedProfileError) as caught:
        merged_profile({"kid": {"extends": extends}}, "kid")
    assert (caught.value.rule, caught.value.path) == (rule, ("kid", "extends"))
