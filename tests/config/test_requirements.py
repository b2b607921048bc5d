"""An administrator's requirements: what is read, what they do to values, and what breaks a load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import attrs
import pytest
import tomlkit
from hypothesis import given
from hypothesis import strategies as st

from engine.config.loading import load_config
from engine.config.model import Config
from engine.config.requirements import (
    NO_REQUIREMENTS,
    AppRequirement,
    McpIdentity,
    Requirements,
    read_requirements,
)
from engine.config.requirements_file import parse_requirements
from engine.config.source import parse_toml
from engine.errors import ConfigError
from engine.permissions.constrained import InvalidValue
from engine.permissions.requirements import PermissionRequirements
from engine.protocol.settings import GranularApproval
from tests.config.documents import tables

FILE = "/etc/codex/requirements.toml"
Load = Callable[[str, str], Config]


def parse(text: str, host: str = "box.example.org") -> Requirements:
    return parse_requirements(parse_toml(text, FILE), "/home/u", lambda: host)


@pytest.fixture(name="load")
def _load(tmp_path: Path) -> Load:
    """Loads `config.toml` under `requirements.toml`."""
    system, home = tmp_path / "etc", tmp_path / "home"
    system.mkdir()
    home.mkdir()

    def load(requirements: str, config: str) -> Config:
        (system / "requirements.toml").write_text(requirements)
        (home / "config.toml").write_text(config)
        return load_config(home, cwd=tmp_path, env={"HOME": str(tmp_path)}, system_folder=system)

    return load


def test_no_file_requires_nothing(tmp_path: Path) -> None:
    assert read_requirements(str(tmp_path), None) is NO_REQUIREMENTS


def test_everything_that_is_enforced() -> None:
    made = parse(
        """
        allowed_approval_policies = [
            "on-request",
            {granular = {sandbox_approval = true, rules = true, mcp_elicitations = false}},
        ]
        allowed_approvals_reviewers = ["auto_review", "user"]
        allowed_sandbox_modes = ["read-only", "workspace-write"]
        allowed_web_search_modes = ["live"]
        something_else = 1
        [permissions.filesystem]
        deny_read = ["~/.ssh", "/**/*.key", "rel", "/a/../b", "/b"]
        """
    )
    assert made == Requirements(
        approval_policies=(
            "on-request",
            GranularApproval(sandbox_approval=True, rules=True, mcp_elicitations=False),
        ),
        approvals_reviewers=("guardian_subagent", "user"),
        web_search_modes=("live", "disabled"),
        permissions=PermissionRequirements(
            sandbox_classes=("read-only", "workspace-write"),
            sandbox_source=FILE,
            deny_read=("/home/u/.ssh", "/**/*.key", "/etc/codex/rel", "/b"),
            deny_read_source=FILE,
        ),
        source=FILE,
        unknown_keys=("something_else",),
    )
    assert made.required_web_search == "live"


def test_what_is_not_enforced_yet_is_said() -> None:
    made = parse(
        "mcp_servers = {}\nrules = {x = 1}\nguardian_policy_config = ' '\nallow_managed_hooks_only = true\n"
        "[hooks]\nmanaged_dir = 'h'\n[experimental_network]\nenabled = true"
    )
    assert made.not_enforced == ("hooks", "experimental_network")
    assert made.rules == {"x": 1}
    assert made.warnings()[0] == f"the requirement `hooks` of {FILE} is not enforced yet by this engine"
    assert made.hooks == {"managed_dir": "/etc/codex/h"}
    assert (made.managed_hooks_only, made.guardian_policy) == (True, None)


SERVICES = """
[mcp_servers.docs.identity]
command = "docs-server"
[mcp_servers.web.identity]
url = "https://mcp.example.com/"
[plugins."p@m".mcp_servers.a.identity]
command = "a"
[apps.mail]
enabled = false
[apps.files.tools.delete]
approval_mode = "prompt"
"""


def test_services_are_typed_and_told_as_they_were_written() -> None:
    made = parse(SERVICES + "[permissions.filesystem]\ndeny_read = ['keys', '~/.ssh']\n[features]\ncollab = false\n")
    assert made.mcp_servers == {
        "docs": McpIdentity(command="docs-server"),
        "web": McpIdentity(url="https://mcp.example.com/"),
    }
    assert made.plugins == {"p@m": {"a": McpIdentity(command="a")}}
    assert made.apps == {"mail": AppRequirement(False), "files": AppRequirement(None, {"delete": "prompt"})}
    assert made.not_enforced == ()  # nothing of all that runs
    told = made.table()
    assert told["permissions"] == {"filesystem": {"deny_read": ["/etc/codex/keys", "/home/u/.ssh"]}}
    assert told["features"] == {"multi_agent": False}
    expected = parse_toml(SERVICES, FILE).table
    assert {key: told[key] for key in expected} == expected
    assert NO_REQUIREMENTS.table() == {}


@pytest.mark.parametrize(
    ("text", "why"),
    [
        ("[mcp_servers.docs]\ncommand = 'docs-server'\nargs = ['x']", None),
        ("[mcp_servers.docs]\ncommand = '/usr/bin/docs-server'", "requirements ({file})"),
        ("[mcp_servers.docs]\nurl = 'docs-server'", "requirements ({file})"),
        ("[mcp_servers.other]\ncommand = 'docs-server'", "requirements ({file})"),
        ("[mcp_servers.web]\nurl = 'https://mcp.example.com/'", None),
        ("[mcp_servers.web]\nurl = 'https://mcp.example.com'", "requirements ({file})"),
        ("[mcp_servers.web]\nurl = 'https://mcp.example.com/'\nenabled = false", "disabled in the configuration"),
    ],
)
def test_only_servers_with_exactly_that_identity_may_be_used(
    load: Load, tmp_path: Path, text: str, why: str | None
) -> None:
    (server,) = load(SERVICES, text).mcp_servers
    file = tmp_path / "etc" / "requirements.toml"
    assert server.disabled == (None if why is None else why.format(file=file))
    (server,) = load("mcp_servers = {}", text).mcp_servers
    assert server.disabled == f"requirements ({file})"
    (server,) = load("", text).mcp_servers
    assert server.disabled in (None, "disabled in the configuration")


def test_a_folder_that_can_not_be_looked_into_stops_the_load(tmp_path: Path) -> None:
    """Whoever can't read the requirements does not run without them."""
    (tmp_path / "loop").symlink_to(tmp_path / "loop")
    with pytest.raises(ConfigError, match=r"Error parsing requirements file .*requirements\.toml: can't be read"):
        read_requirements(str(tmp_path / "loop"), None)


def test_residency() -> None:
    assert parse("enforce_residency = 'us'").residency == "us"
    with pytest.raises(ConfigError, match="`enforce_residency`: unknown variant `moon`, expected `us`"):
        parse("enforce_residency = 'moon'")


def test_pinned_features_and_their_names() -> None:
    made = parse(
        "[features]\ncollab = false\nauto_review = true\nnew_thing = true\n[feature_requirements]\nhooks = false"
    )
    assert made.features == {"multi_agent": False, "guardian_approval": True, "hooks": False}
    assert made.warnings() == (
        f"Using legacy `features` requirement `auto_review` from {FILE}; prefer canonical feature key "
        "`guardian_approval`",
        f"Using legacy `features` requirement `collab` from {FILE}; prefer canonical feature key `multi_agent`",
        f"Ignoring unknown `features` requirement `new_thing` from {FILE}",
    )
    with pytest.raises(ConfigError, match="`features`: invalid type: integer `3`, expected a table"):
        parse("features = 3")


def test_a_pin_beats_every_layer_and_a_dependency_that_fights_it_is_an_error(load: Load) -> None:
    assert not load("features = {hooks = false}", "features = {hooks = true}").features["hooks"]
    assert load("features = {goals = true}", "").features["goals"]
    with pytest.raises(ConfigError) as caught:
        load("features = {multi_agent = false}", "features = {enable_fanout = true}")
    assert str(caught.value).startswith(
        "invalid value for `features`: `multi_agent=true` is not in the allowed set [multi_agent=false] (set by "
    )


def test_what_managed_config_sets_is_required_where_requirements_say_nothing(tmp_path: Path, load: Load) -> None:
    managed = tmp_path / "etc" / "managed_config.toml"
    managed.write_text("approval_policy = 'never'\nsandbox_mode = 'workspace-write'\napprovals_reviewer = 'user'\n")
    config = load("", "approval_policy = 'untrusted'\nsandbox_mode = 'danger-full-access'")
    assert (config.approval_policy, config.sandbox_policy.type) == ("never", "workspace-write")
    assert config.requirements.approval_policies == ("never",)
    assert config.requirements.approvals_reviewers == ("user",)
    assert config.requirements.permissions.sandbox_classes == ("read-only", "workspace-write")
    with pytest.raises(InvalidValue, match=r"set by .*managed_config\.toml"):
        config.requirements.check_approval_policy("on-request")

    first = load("allowed_approval_policies = ['on-request']\nallowed_sandbox_modes = ['read-only']", "")
    assert first.requirements.approval_policies == ("on-request",)
    assert (first.approval_policy, first.sandbox_policy.type) == ("on-request", "read-only")
    assert [text.split(";")[0] for text in first.warnings] == [
        "Configured value for `permission_profile` is disallowed by requirements",
        "Configured value for `approval_policy` is disallowed by requirements",
    ]


def test_a_wrong_value_in_managed_config_is_an_error_with_its_place(tmp_path: Path, load: Load) -> None:
    (tmp_path / "etc" / "managed_config.toml").write_text("\napproval_policy = 'always'\n")
    with pytest.raises(ConfigError, match=r"managed_config\.toml:2:1: `approval_policy`: unknown variant `always`"):
        load("", "")


@pytest.mark.parametrize(
    ("host", "allowed"),
    [("build-7.example.org", True), ("BUILD-7.example.org.", True), ("build.example.org", False), ("other", False)],
)
def test_modes_for_some_hosts(host: str, allowed: bool) -> None:
    made = parse(
        """
        allowed_sandbox_modes = ["read-only"]
        [[remote_sandbox_config]]
        hostname_patterns = ["ci", "build-?.*"]
        allowed_sandbox_modes = ["read-only", "danger-full-access"]
        """,
        host,
    )
    assert made.permissions.sandbox_classes == (("read-only", "danger-full-access") if allowed else ("read-only",))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("x = = 1", f"Error parsing requirements file {FILE}: invalid TOML: Invalid value"),
        ("allowed_sandbox_modes = 'read-only'", "`allowed_sandbox_modes`: invalid type"),
        ("allowed_sandbox_modes = ['none']", "`allowed_sandbox_modes.0`: unknown variant `none`"),
        ("allowed_sandbox_modes = ['workspace-write']", "must include 'read-only' to allow any PermissionProfile"),
        ("allowed_approval_policies = []", "field `allowed_approval_policies` cannot be empty"),
        ("allowed_approval_policies = ['sometimes']", "`allowed_approval_policies.0`: "),
        ("remote_sandbox_config = ['x']", "`remote_sandbox_config.0`: invalid type"),
        ("permissions = 1", "`permissions`: invalid type"),
        ("permissions = {filesystem = {deny_read = [1]}}", "`permissions.filesystem.deny_read.0`: invalid type"),
    ],
)
def test_a_broken_file_stops_the_load(text: str, message: str, tmp_path: Path) -> None:
    (tmp_path / "requirements.toml").write_text(f"\n{text}\n")
    with pytest.raises(ConfigError) as caught:
        read_requirements(str(tmp_path), None)
    assert message.replace(FILE, str(tmp_path / "requirements.toml")) in str(caught.value)
    assert (caught.value.file, caught.value.line) == (str(tmp_path / "requirements.toml"), 2)


def test_an_explicit_value_falls_back_with_a_warning(load: Load, tmp_path: Path) -> None:
    config = load(
        'allowed_approval_policies = ["on-request", "untrusted"]\nallowed_web_search_modes = []\n'
        'allowed_approvals_reviewers = ["user"]\n',
        'approval_policy = "never"\nweb_search = "live"\napprovals_reviewer = "auto_review"\n',
    )
    source = tmp_path / "etc" / "requirements.toml"
    assert (config.approval_policy, config.web_search, config.approvals_reviewer) == ("on-request", "disabled", "user")
    assert config.warnings[:3] == (
        "Configured value for `approval_policy` is disallowed by requirements; falling back to required value "
        "OnRequest. Details: invalid value for `approval_policy`: `Never` is not in the allowed set "
        f"[OnRequest, UnlessTrusted] (set by {source})",
        "Configured value for `approvals_reviewer` is disallowed by requirements; falling back to required value user. "
        "Details: invalid value for `approvals_reviewer`: `GuardianSubagent` is not in the allowed set [User] "
        f"(set by {source})",
        "Configured value for `web_search_mode` is disallowed by requirements; falling back to required value "
        "Disabled. Details: invalid value for `web_search_mode`: `Live` is not in the allowed set [Disabled] "
        f"(set by {source})",
    )
    assert config.raw["approval_policy"] == "never"


def test_the_first_allowed_policy_stands_in(load: Load) -> None:
    assert load(
        'allowed_approval_policies = ["untrusted", "on-request"]', 'approval_policy = "never"'
    ).approval_policy == ("untrusted")


def test_a_default_is_replaced_silently(load: Load) -> None:
    config = load('allowed_approval_policies = ["never"]\nallowed_web_search_modes = []', "")
    assert (config.approval_policy, config.web_search, config.warnings) == ("never", "disabled", ())


def test_trust_decides_about_approvals(load: Load, tmp_path: Path) -> None:
    untrusted = f'[projects."{tmp_path}"]\ntrust_level = "untrusted"\n'
    config = load("", untrusted)
    assert (config.approval_policy, config.sandbox_policy.type) == ("untrusted", "workspace-write")
    config = load("", untrusted.replace("untrusted", "trusted"))
    assert (config.approval_policy, config.sandbox_policy.type) == ("on-request", "workspace-write")
    config = load("", "")
    assert (config.approval_policy, config.sandbox_policy.type) == ("on-request", "read-only")


def test_later_changes_are_refused() -> None:
    made = parse('allowed_approval_policies = ["never"]')
    made.check_approval_policy("never")
    with pytest.raises(InvalidValue) as caught:
        made.check_approval_policy("on-failure")
    assert (caught.value.candidate, caught.value.allowed, caught.value.requirement_source) == (
        "OnFailure",
        "[Never]",
        FILE,
    )


NAMES = st.sampled_from(["a", "docs", "p@m", "x y"])
SERVERS = st.dictionaries(
    NAMES,
    st.fixed_dictionaries({"identity": st.one_of(st.just({"command": "c"}), st.just({"url": "https://h/"}))}),
    max_size=2,
)
DOCUMENTS = st.fixed_dictionaries(
    {},
    optional={
        "allowed_approval_policies": st.lists(st.sampled_from(["never", "on-request"]), min_size=1, unique=True),
        "allowed_approvals_reviewers": st.lists(st.sampled_from(["user", "auto_review", "guardian_subagent"])),
        "allowed_sandbox_modes": st.lists(st.sampled_from(["workspace-write", "danger-full-access"])).map(
            lambda modes: ["read-only", *modes]
        ),
        "allowed_web_search_modes": st.lists(st.sampled_from(["live", "cached", "disabled"]), unique=True),
        "allow_managed_hooks_only": st.booleans(),
        "features": st.dictionaries(st.sampled_from(["goals", "collab", "auto_review", "nonsense"]), st.booleans()),
        "hooks": st.just({"managed_dir": "h", "PreToolUse": []}),
        "mcp_servers": SERVERS,
        "plugins": st.dictionaries(NAMES, st.fixed_dictionaries({"mcp_servers": SERVERS}), max_size=2),
        "apps": st.dictionaries(
            NAMES,
            st.fixed_dictionaries(
                {},
                optional={"enabled": st.booleans(), "tools": st.just({"t": {"approval_mode": "prompt"}})},
            ),
            max_size=2,
        ),
        "enforce_residency": st.just("us"),
        "experimental_network": st.just({"enabled": True}),
        "permissions": st.lists(st.sampled_from(["rel", "~/k", "/a/../b", "/**/*.key"])).map(
            lambda paths: {"filesystem": {"deny_read": paths}}
        ),
        "guardian_policy_config": st.sampled_from(["", " ", "be strict"]),
        "something_else": st.integers(),
    },
)


@given(DOCUMENTS)
def test_what_is_told_means_the_same_when_it_is_required_again(document: dict[str, object]) -> None:
    made = parse(tomlkit.dumps(document))
    again = parse(tomlkit.dumps(made.table()))
    assert again.table() == made.table()
    assert attrs.evolve(again, notices=(), unknown_keys=()) == attrs.evolve(made, notices=(), unknown_keys=())


@given(tables)
def test_any_document_is_understood_or_refused_with_its_place(document: dict[str, object]) -> None:
    for key in ("", "features", "mcp_servers", "permissions", "apps", "hooks"):
        text = tomlkit.dumps({key: document} if key else document)
        refused: ConfigError | None = None
        try:
            assert isinstance(parse(text).table(), dict)
        except ConfigError as error:
            refused = error
        assert refused is None or (refused.file, refused.line is not None) == (FILE, True)
