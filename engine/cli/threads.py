"""`engine threads`: look at stored threads and look after them, beside running sessions."""

from __future__ import annotations

import functools
import json
import os
import shutil
import sys
from collections.abc import Awaitable, Callable
from pathlib import Path

import trio

from engine.cli.progress import progress_bar
from engine.cli.terminal import Palette, colour_wanted, plain
from engine.cli.threads_arguments import ThreadsArguments
from engine.cli.threads_choosing import Chosen, choose
from engine.cli.threads_listing import facts, table, thread_json
from engine.config.loading import find_home
from engine.errors import EngineError, InvalidRequest
from engine.runtime import open_threads
from engine.thread_store.interface import ListThreads, StoredThread
from engine.thread_store.locks import RolloutLocks
from engine.thread_store.threads import Threads

__all__ = ["run_threads"]


def run_threads(arguments: ThreadsArguments) -> int:
    """Does what the words say; the exit code. Errors are one line on stderr."""
    try:
        return _Command(arguments, find_home(os.environ)).run()
    except EngineError as exc:
        print(f"error: {plain(str(exc))}", file=sys.stderr)
    except BrokenPipeError:
        # Nobody reads any more; let the flush at exit go nowhere instead of complaining.
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
    except KeyboardInterrupt:
        print("interrupted", file=sys.stderr)
    return 1


class _Command:
    def __init__(self, arguments: ThreadsArguments, home: Path) -> None:
        self.arguments = arguments
        self.home = home
        self.palette = Palette(colour_wanted("auto", sys.stdout, os.environ))
        self.user_home = os.path.expanduser("~")

    def run(self) -> int:
        match self.arguments.action:
            case "list":
                return self.over_store(self.list)
            case "show":
                return self.over_store(functools.partial(self.show, self.chosen()[0]))
            case "fork":
                return self.over_store(functools.partial(self.fork, self.chosen()[0]))
            case "rename":
                return self.over_store(functools.partial(self.rename, self.chosen()[0]))
            case "archive":
                return self.over_store(functools.partial(self.each, self.archive))
            case "unarchive":
                return self.over_store(functools.partial(self.each, self.unarchive))
            case "delete":
                return self.over_store(functools.partial(self.each, self.delete)) if self.sure() else 1
            case "export":
                return self.export(self.chosen()[0])
            case "verify":
                from engine.cli.threads_health import verify_threads

                return verify_threads(self.home, self.chosen(), as_json=self.arguments.json)
            case "repair":
                from engine.cli.threads_health import repair_threads

                return repair_threads(self.home, self.chosen(), as_json=self.arguments.json)

    def chosen(self) -> list[Chosen]:
        return [choose(self.home, word) for word in self.arguments.threads]

    def over_store(self, work: Callable[[Threads], Awaitable[int]]) -> int:
        async def run() -> int:
            async with open_threads(home=self.home) as threads:
                return await work(threads)

        return trio.run(run)

    # --- looking ---------------------------------------------------------------------------------

    async def list(self, threads: Threads) -> int:
        words = self.arguments
        page = await threads.list(
            ListThreads(
                limit=words.limit,
                cursor=words.cursor,
                sort_key="created_at" if words.sort == "created" else "updated_at",
                direction="asc" if words.oldest_first else "desc",
                archived=words.archived,
                model_providers=words.providers or None,
                source_kinds=words.sources or None,
                cwds=None if words.cwd is None else _spellings(words.cwd),
                search=words.search,
            )
        )
        if words.json:
            found = [thread_json(thread) for thread in page.threads]
            print(json.dumps({"threads": found, "next_cursor": page.next_cursor}, ensure_ascii=False, default=str))
            return 0
        width = shutil.get_terminal_size((120, 24)).columns
        for line in table(page.threads, width=width, palette=self.palette, user_home=self.user_home):
            print(line)
        if not page.threads:
            print("no threads", file=sys.stderr)
        if page.next_cursor is not None:
            print(f"there are more: add --cursor {page.next_cursor}", file=sys.stderr)
        return 0

    async def show(self, chosen: Chosen, threads: Threads) -> int:
        thread = await self.read(threads, chosen)
        holder = RolloutLocks(self.home).holder(chosen.path)
        spawned = await threads.spawned(thread.thread_id)
        if self.arguments.json:
            told = thread_json(thread)
            told["holder"] = None if holder is None else str(holder)
            told["spawned"] = [{"child": edge.child, "status": edge.status} for edge in spawned]
            print(json.dumps(told, ensure_ascii=False, default=str))
            return 0
        lines = facts(thread, holder=holder, spawned=spawned, palette=self.palette, user_home=self.user_home)
        for line in lines:
            print(line)
        return 0

    async def read(self, threads: Threads, chosen: Chosen) -> StoredThread:
        return await threads.read(_id(chosen))

    # --- changing --------------------------------------------------------------------------------

    async def fork(self, chosen: Chosen, threads: Threads) -> int:
        words = self.arguments
        source = Path(chosen.path) if chosen.archived or not chosen.thread_id else chosen.thread_id
        with progress_bar("copying", sys.stderr) as bar:
            made = await threads.fork(
                source,
                before="interrupted" if words.before is None else words.before,
                through=words.through,
                progress=bar.tell,
            )
        if words.name is not None:
            await threads.rename(made.thread_id, words.name)
            made = await threads.read(made.thread_id)
        print(json.dumps(thread_json(made), ensure_ascii=False, default=str) if words.json else made.thread_id)
        return 0

    async def rename(self, chosen: Chosen, threads: Threads) -> int:
        await threads.rename(_id(chosen), self.arguments.name or "")
        return 0

    async def each(self, work: Callable[[Threads, Chosen], Awaitable[None]], threads: Threads) -> int:
        """Does something with each thread that was named; one that can't be done does not keep the others from it."""
        code = 0
        for word in self.arguments.threads:
            try:
                await work(threads, choose(self.home, word))
            except EngineError as exc:
                print(f"error: {plain(str(exc))}", file=sys.stderr)
                code = 1
        return code

    async def archive(self, threads: Threads, chosen: Chosen) -> None:
        if chosen.archived:
            raise InvalidRequest(f"thread {_id(chosen)} is archived already")
        for thread in await threads.archive(_id(chosen)):
            print(f"archived {thread}")

    async def unarchive(self, threads: Threads, chosen: Chosen) -> None:
        if not chosen.archived:
            raise InvalidRequest(f"thread {_id(chosen)} is not archived")
        thread = await threads.unarchive(_id(chosen))
        print(f"brought back {thread.thread_id}")

    async def delete(self, threads: Threads, chosen: Chosen) -> None:
        await threads.delete(_id(chosen))
        print(f"deleted {chosen.thread_id}")

    def sure(self) -> bool:
        """Whether to delete for good. Asks a person."""
        chosen = self.chosen()
        if self.arguments.yes:
            return True
        if not (sys.stdin is not None and sys.stdin.isatty()):
            raise InvalidRequest("to delete without being asked, add --yes")
        what = chosen[0].thread_id if len(chosen) == 1 else f"{len(chosen)} threads"
        print(f"Delete {what} for good? [y/N] ", end="", file=sys.stderr, flush=True)
        return sys.stdin.readline().strip().lower() in ("y", "yes")

    # --- transcripts -----------------------------------------------------------------------------

    def export(self, chosen: Chosen) -> int:
        from engine.cli.threads_export import export

        words = self.arguments
        as_html = words.format == "html"
        if words.format is None and words.output is not None:
            as_html = words.output.lower().endswith((".html", ".htm"))
        with progress_bar("exporting", sys.stderr) as bar:
            damaged = export(
                chosen.path,
                self.title(chosen),
                output=words.output,
                as_html=as_html,
                force=words.force,
                progress=bar.tell,
            )
        if damaged:
            print(
                f"warning: {damaged} lines can't be read and are left out; `engine threads verify` says which",
                file=sys.stderr,
            )
        return 0

    def title(self, chosen: Chosen) -> str:
        from engine.thread_store.finding import stored_thread
        from engine.thread_store.names import ThreadNames

        names = ThreadNames(self.home)
        names.refresh()
        thread = stored_thread(self.home, chosen.path)
        said = None if thread is None else (thread.title or thread.preview)
        return names.get(chosen.thread_id) or said or chosen.thread_id or os.path.basename(chosen.path)


def _spellings(folder: str) -> tuple[str, ...]:
    """A folder as it may stand in a thread."""
    return tuple({os.path.abspath(folder), os.path.realpath(folder)})


def _id(chosen: Chosen) -> str:
    if not chosen.thread_id:
        raise InvalidRequest(f"the name of {chosen.path} is not that of a rollout, so it names no stored thread")
    return chosen.thread_id
