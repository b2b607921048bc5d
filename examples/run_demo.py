"""What `make run` shows: a session repairs a small broken project, then a new process goes on with it.

Everything happens in one temporary folder: a copy of `broken_project`, and a home of its own, so that no real
configuration or session is touched. The model is a script (`demo.toml`); everything else is real, the sandbox too.
"""

from __future__ import annotations

import argparse
import os
import shlex
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).resolve().parent
ENGINE = [sys.executable, "-P", "-m", "engine"]  # -P: the folder we are in is not on the path
ASK = "The tests fail. Find out why and repair it."
ASK_AGAIN = "Which file did you change, and why did the tests fail?"


def main() -> int:
    parser = argparse.ArgumentParser(description="Runs the demo with the engine of this Python.")
    parser.add_argument("--folder", type=Path, help="where to work (default: a new temporary folder)")
    parser.add_argument("--remove", action="store_true", help="remove the folder at the end")
    parser.add_argument("--sandbox", default="workspace-write", metavar="MODE", help="what commands may touch")
    arguments = parser.parse_args()
    folder = (arguments.folder or Path(tempfile.mkdtemp(prefix="engine-demo-"))).resolve()
    try:
        return demo(folder, arguments.sandbox)
    finally:
        if arguments.remove:
            shutil.rmtree(folder, ignore_errors=True)
        else:
            say(f"The project and the recorded session are in {folder}")


def demo(folder: Path, sandbox: str) -> int:
    home, project = folder / "home", folder / "project"
    home.mkdir(parents=True)
    shutil.copytree(HERE / "broken_project", project, ignore=shutil.ignore_patterns("__pycache__"))
    environment = {**os.environ, "CODEX_HOME": str(home), "PYTHONDONTWRITEBYTECODE": "1"}
    version = subprocess.run([*ENGINE, "--version"], capture_output=True, text=True, check=True)
    say(version.stdout.strip())
    extra: list[str] = []
    if shutil.which("git"):
        subprocess.run(["git", "init", "-q", str(project)], check=True)
    else:
        extra = ["--skip-git-repo-check"]
    if not can_hold_commands(sandbox, project, environment):
        say("Commands can't be held here; `engine doctor` says how to get more. To see it without a sandbox:")
        say("make run DEMO='--sandbox danger-full-access'")
        return 1
    say(f"What commands may touch: {sandbox}. The project is a temporary copy.")
    model = ["--model-provider", "scripted", "--script", str(HERE / "demo.toml"), "--sandbox", sandbox]
    steps = [
        ["exec", "--trace-startup", *model, *extra, ASK],
        ["exec", *model, *extra, "resume", "--last", ASK_AGAIN],
    ]
    for at, words in enumerate(steps):
        if at:
            say("A new process resumes the session:")
        code = engine(words, project, environment)
        if code:
            say(f"the engine exited with {code}")
            return code
    tests = subprocess.run([sys.executable, "-m", "unittest", "-q"], cwd=project, env=environment, check=False)
    return tests.returncode


def can_hold_commands(sandbox: str, project: Path, environment: dict[str, str]) -> bool:
    """Whether this machine can enforce what is asked for; why not goes to stderr."""
    words = ["sandbox", "-c", f"sandbox_mode={sandbox}", "--", "true"]
    return subprocess.run([*ENGINE, *words], cwd=project, env=environment, check=False).returncode == 0


def engine(words: list[str], project: Path, environment: dict[str, str]) -> int:
    say(f"$ engine {shlex.join(words)}")
    stdin = None if sys.stdin.isatty() else subprocess.DEVNULL
    return subprocess.run([*ENGINE, *words], cwd=project, env=environment, stdin=stdin, check=False).returncode


def say(text: str) -> None:
    print(f"\n# {text}", file=sys.stderr, flush=True)


if __name__ == "__main__":
    sys.exit(main())
