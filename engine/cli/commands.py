"""The commands besides `engine exec`; each is imported when it is the one to run."""

from __future__ import annotations

from engine.cli.arguments import (
    Arguments,
    ConfigArguments,
    DoctorArguments,
    ExecPolicyCheckArguments,
    ListModelsArguments,
    LoginArguments,
    SandboxArguments,
    ServeScriptedArguments,
    ThreadsArguments,
    VersionArguments,
)

__all__ = ["run_command"]


def run_command(arguments: Arguments) -> int:
    """Runs the command that was asked for; returns the exit code."""
    match arguments:
        case VersionArguments():
            return _version()
        case ServeScriptedArguments():
            from engine.cli.serve_scripted import serve_scripted

            return serve_scripted(arguments)
        case LoginArguments():
            from engine.cli.login import run_login

            return run_login(arguments)
        case ListModelsArguments():
            from engine.cli.login import list_models

            return list_models(arguments)
        case ThreadsArguments():
            from engine.cli.threads import run_threads

            return run_threads(arguments)
        case ConfigArguments():
            from engine.cli.config import run_config

            return run_config(arguments)
        case SandboxArguments():
            from engine.cli.sandbox import run_sandbox

            return run_sandbox(arguments)
        case DoctorArguments():
            from engine.cli.doctor import run_doctor

            return run_doctor(arguments)
        case ExecPolicyCheckArguments():
            from engine.cli.execpolicy import check

            return check(arguments)


def _version() -> int:
    from engine import __version__
    from engine.accel import implementation

    kind = "compiled" if implementation() == "c" else "pure Python"
    print(f"engine {__version__} ({kind})")
    return 0
