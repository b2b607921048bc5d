"""The example of docs/permissions.md is a configuration that loads and means what the page says."""

from __future__ import annotations

import re
from pathlib import Path

from engine.config.loading import load_config
from engine.permissions.access import compile_policy
from engine.permissions.read_denial import read_deny_matcher

DOCS = Path(__file__).parents[2] / "docs" / "permissions.md"


def test_the_example(tmp_path: Path) -> None:
    (example,) = re.findall(r"```toml\n(.*?)```", DOCS.read_text(), re.DOTALL)
    home, work = tmp_path / "home", tmp_path / "work"
    home.mkdir()
    work.mkdir()
    (home / "config.toml").write_text(example)
    config = load_config(home, cwd=work, env={"HOME": str(tmp_path)}, system_folder=tmp_path)
    session = config.permissions.session()
    active = session.snapshot.active
    assert active is not None
    assert (active.id, active.extends) == ("dev", ":workspace")
    assert session.network == "enabled"
    assert config.warnings == ()
    view = config.permissions.source.view
    compiled = compile_policy(session.file_system, str(work), view)
    assert [compiled.can_write(path) for path in ("a", ".git/x", "~/shared/a", "/srv/cache/x", "/etc/hosts")] == [
        True,
        False,
        True,
        True,
        False,
    ]
    assert not compiled.can_read("secrets/key")
    matcher = read_deny_matcher(session.file_system, str(work), view)
    assert matcher is not None
    assert not matcher.is_read_denied("sub/.envrc")
    assert matcher.is_read_denied("sub/prod.env")
