"""What can keep a command from running in a sandbox. It is never run without one instead."""

from __future__ import annotations

from engine.errors import ProcessError

__all__ = ["SandboxPolicyError", "SandboxUnavailable"]


class SandboxUnavailable(ProcessError):
    """This machine can't enforce the policy. The text says why, and what would help; `engine doctor` says more."""


class SandboxPolicyError(ProcessError):
    """The policy can't be enforced as things stand on the disk. `path` is what it is about."""

    def __init__(self, message: str, *, path: str) -> None:
        self.path = path
        super().__init__(message)
