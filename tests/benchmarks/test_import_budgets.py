"""What is loaded at the moments that bench.toml lists: no more than its list says."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import pytest

from benchmarks.import_budgets import ImportBudget, Loaded, load_import_budgets, loaded_by, loaded_until_output

CONFIG = """
model_provider = "here"
[model_providers.here]
name = "here"
base_url = "http://127.0.0.1:9/v1"
supports_websockets = true
"""
SCRIPT = '[[responses]]\ntext = "an answer"\n'
OPENED = """
import engine, os, trio
async def main():
    async with engine.open_engine(home={home!r}) as host:
        {doing}
trio.run(main)
"""


def opened(home: Path, doing: str) -> Loaded:
    # The snapshot is taken inside: what ends an engine may load more.
    code = OPENED.format(home=str(home), doing=f"{doing}; import __main__; __main__._snapshot(); os._exit(0)")
    return loaded_by(code)


def scripted(home: Path) -> Loaded:
    (home / "script.toml").write_text(SCRIPT)
    flags = ["--model-provider", "scripted", "--script", "script.toml"]
    return loaded_until_output(["exec", "--json", "--skip-git-repo-check", *flags, "say"], home)


MOMENTS: dict[str, Callable[[Path], Loaded]] = {
    "import engine": lambda home: loaded_by("import engine"),
    "open_engine": lambda home: opened(home, "pass"),
    "start_session": lambda home: opened(home, "await host.start_session()"),
    "engine --help": lambda home: loaded_until_output(["--help"], home),
    "engine exec --help": lambda home: loaded_until_output(["exec", "--help"], home),
    "engine exec": lambda home: loaded_until_output(["exec", "--json", "--skip-git-repo-check", "say"], home),
    "engine exec --script": scripted,
}


@pytest.fixture
def home(tmp_path: Path) -> Path:
    (tmp_path / "config.toml").write_text(CONFIG)
    return tmp_path


@pytest.mark.parametrize("moment", MOMENTS)
def test_nothing_is_loaded_that_is_not_listed(moment: str, home: Path) -> None:
    budget = load_import_budgets()[moment]
    complaints = budget.complaints(MOMENTS[moment](home))
    assert not complaints, "\n".join([f"bench.toml, [imports.{moment!r}]:", *complaints])


def test_every_list_has_its_moment() -> None:
    assert load_import_budgets().keys() == MOMENTS.keys()


def test_a_complaint_says_what_came_in_and_who_imported_it() -> None:
    budget = ImportBudget(
        "a start",
        engine=frozenset({"engine", "engine.a", "engine.twin", "engine.gone"}),
        optional=frozenset({"engine.twin"}),
        absent=frozenset({"httpx2"}),
    )
    loaded = Loaded(
        {
            "engine": "the program, line 1",
            "engine.a": "engine, line 2",
            "engine.b": "engine.a, line 3",
            "engineering": "engine.b, line 1",
            "httpx2": "engine.b, line 4",
            "httpx2.client": "httpx2, line 5",
        }
    )
    assert budget.complaints(loaded) == [
        "engine.b came in, imported by engine.a, line 3",
        "httpx2 came in, imported by engine.b, line 4",
        "engine.gone is listed but was not loaded: take it from the list",
    ]


def test_an_import_is_put_down_to_whoever_wrote_it() -> None:
    asked = loaded_by("import engine\nfrom xml import dom").asked
    assert asked["engine"] == "the program, line 1"
    assert asked["xml.dom"] == "the program, line 2"
    assert asked["sys"] == "the interpreter"


def test_a_program_that_fails_is_an_error_with_its_words() -> None:
    with pytest.raises(RuntimeError, match="no module of that name"):
        loaded_by("raise ImportError('no module of that name')")


@pytest.mark.parametrize(
    ("text", "problem"),
    [
        ("", "needs the table"),
        ("[imports]\na = 3", "a table of"),
        ("[imports.a]\nmodules = ''", "a table of"),
        ("[imports.a]\nas = 'b'\n[imports.b]", "must stand before it"),
        ("[imports.a]\nengine = 'session'", "a table of rooms"),
    ],
)
def test_lists_that_make_no_sense_are_refused(tmp_path: Path, text: str, problem: str) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(text)
    with pytest.raises(ValueError, match=problem):
        load_import_budgets(path)


def test_a_list_goes_on_from_another(tmp_path: Path) -> None:
    path = tmp_path / "bench.toml"
    path.write_text(
        "[imports.a]\nengine = { '.' = 'x', room = 'y? z' }\nabsent = 'ssl json'\n"
        "[imports.b]\nas = 'a'\npresent = 'json'\nengine = { 'room.inner' = 'w' }\n"
    )
    first, second = load_import_budgets(path).values()
    assert first.engine == {"engine", "engine.x", "engine.room", "engine.room.y", "engine.room.z"}
    assert first.optional == second.optional == {"engine.room.y"}
    assert first.absent == {"ssl", "json"}
    assert second.engine == first.engine | {"engine.room.inner", "engine.room.inner.w"}
    assert second.absent == {"ssl"}
