"""What is known of commands without any rule: harmless ones and destructive ones (tools.md 5.2, 5.3)."""

from __future__ import annotations

from engine.exec_policy.command_safety.dangerous import is_dangerous as is_dangerous
from engine.exec_policy.command_safety.known_safe import is_known_safe as is_known_safe
