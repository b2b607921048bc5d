"""Policy arithmetic on entries, and policies compiled for one directory.

- `materialize(entries, roots)` puts one path or glob per root in the place of every workspace symbol, in root order,
  and copies the rest; without roots the symbols vanish (permissions.md 2.9).
- `merge_entries(entries, more, denied_only=False)` appends what is not there yet, in order; with `denied_only` only
  the `none` entries of `more` (2.4, 2.8, 2.9).
- `legacy_scan(entries, cwd)` sums up the write entries in the terms of legacy policies (2.5). `roots` holds paths,
  the first of equal ones.
- `CompiledPolicy(rows, *, cwd, home=None, open=False, full_write=False)` answers for paths without allocating:
  `can_read`, `can_write`, `access`, `forbidden_metadata`, `explain` (3.2, 4.2, 4.3) and the root lists of 4.5. A row is
  `(normal path, access, position in the policy)`; `open` is a policy that restricts nothing, `full_write` one that can
  write the whole disk. Paths asked about are taken as text: relative ones from `cwd`, `~` from `home`, `.`, `..` and
  doubled slashes resolved lexically. `engine.permissions.access.compile_policy` makes one of a policy.

Entries have canonical paths; nothing here looks at a disk.
"""

from __future__ import annotations

from engine.permissions._projection_py import (
    IMPLEMENTATION,
    CompiledPolicy,
    LegacyScan,
    legacy_scan,
    materialize,
    merge_entries,
)

__all__ = [
    "IMPLEMENTATION",
    "CompiledPolicy",
    "LegacyScan",
    "legacy_scan",
    "materialize",
    "merge_entries",
]
