"""Policy arithmetic on entries, and policies compiled for one directory; compiled or pure, whichever runs.

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

Entries have canonical paths; nothing here looks at a disk. Twins: `_speedups/projection.pyx` and
`engine/permissions/_projection_py.py`.
"""

from __future__ import annotations

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from engine.permissions._projection_py import (
        IMPLEMENTATION,
        CompiledPolicy,
        legacy_scan,
        materialize,
        merge_entries,
    )
else:
    from engine.accel import load_twin

    _twin = load_twin("_speedups.projection", "engine.permissions._projection_py")
    CompiledPolicy = _twin.CompiledPolicy
    IMPLEMENTATION = _twin.IMPLEMENTATION
    legacy_scan = _twin.legacy_scan
    materialize = _twin.materialize
    merge_entries = _twin.merge_entries

__all__ = [
    "IMPLEMENTATION",
    "CompiledPolicy",
    "legacy_scan",
    "materialize",
    "merge_entries",
]
