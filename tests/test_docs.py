"""What the documentation says can be done: its programs run, its links lead somewhere, its tables are complete."""

from __future__ import annotations

import argparse
import asyncio
import contextlib
import dataclasses
import functools
import inspect
import io
import re
import socket
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from starlette.applications import Starlette

from loquent.asr import Recognizer, StreamingOptions, TranscribeOptions
from loquent.speech.audio.codecs import ENCODINGS
from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.cli import _parser
from loquent.speech.net.client import ClientStream
from loquent.speech.net.limits import Limits
from loquent.speech.net.messages import CLOSE_CODES, Fail, Start
from loquent.speech.net.metrics import Metrics
from loquent.speech.net.protocol import ServerProtocol
from loquent.speech.net.server import Server, create_app
from loquent.speech.runtime.engine import Engine
from loquent.speech.runtime.events import Event, Final
from loquent.speech.runtime.pipeline import Pipeline
from loquent.speech.runtime.scheduler import Scheduler
from loquent.speech.runtime.stream import Stream
from loquent.speech.runtime.task import Task

ROOT = Path(__file__).parents[1]
CARDS = sorted((ROOT / "asr" / "assets").rglob("README.md"))
PAGES = [
    *(ROOT / f"{name}.md" for name in ("README", "CONTRIBUTING", "CHANGELOG")),
    *sorted((ROOT / "docs").rglob("*.md")),
]
PROGRAM = re.compile(r"^(<!-- with a server -->\n)?```python\n(.+?)^```", re.MULTILINE | re.DOTALL)
SERVED = "ws://127.0.0.1:8000"  # in the programs; replaced by where the test's server is


def page(name: str) -> str:
    return (ROOT / "docs" / name).read_text(encoding="utf-8")


def with_programs() -> list[Path]:
    return [path for path in PAGES if path.name != "CONTRIBUTING.md" and PROGRAM.search(path.read_text("utf-8"))]


@pytest.fixture
def excerpt(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where programs run: the sample is there under its name, its first four seconds."""
    sample = read_audio(ROOT / "speech" / "assets" / "sample.flac")
    (tmp_path / "speech" / "assets").mkdir(parents=True)
    short = sample.samples[: 4 * sample.sample_rate]
    write_audio(tmp_path / "speech" / "assets" / "sample.flac", short, sample.sample_rate)
    (tmp_path / "speech" / "assets" / "sample.txt").write_text("no audio")
    monkeypatch.chdir(tmp_path)


load = functools.cache(Recognizer.from_pretrained)  # programs that name the same model share it


def load_or_open(name: str, **options: Any) -> Recognizer:
    """A model by name is loaded once; a folder that a program made is opened."""
    return load(name) if name == "tiny.en" else load.__wrapped__(name, **options)


@contextlib.contextmanager
def running_server(app: Starlette | None = None) -> Iterator[str]:
    """A server of an application, or of the model, in a thread; gives its URL."""
    app = app or create_app(Engine(load("tiny.en").streaming_task()))
    with socket.socket() as listener:
        listener.bind(("127.0.0.1", 0))
        server = Server(app, log_level="error")
        thread = threading.Thread(target=lambda: asyncio.run(server.serve([listener])))
        thread.start()
        while not server.started:
            time.sleep(0.01)
        try:
            yield f"ws://127.0.0.1:{listener.getsockname()[1]}"
        finally:
            server.should_exit = True
            thread.join()


@pytest.mark.parametrize("path", with_programs(), ids=lambda path: path.relative_to(ROOT).as_posix())
def test_programs_run(
    path: Path, excerpt: None, monkeypatch: pytest.MonkeyPatch, request: pytest.FixtureRequest
) -> None:
    """One after the other, with the names of those before it. A server is that of the page's `app`, if it has one."""
    load("tiny.en")
    monkeypatch.setattr(Recognizer, "from_pretrained", load_or_open)
    names: dict[str, Any] = {}
    for needs_server, program in PROGRAM.findall(path.read_text(encoding="utf-8")):
        with running_server(names.get("app")) if needs_server else contextlib.nullcontext(SERVED) as url:
            printed = io.StringIO()
            with contextlib.redirect_stdout(printed):
                exec(compile(program.replace(SERVED, url), path.name, "exec", dont_inherit=True), names)
            assert path.name != "README.md" or re.search(r"\w", printed.getvalue()), f"prints nothing:\n{program}"
    for test in [value for name, value in names.items() if name.startswith("test_")]:
        test(*(request.getfixturevalue(fixture) for fixture in inspect.signature(test).parameters))


def test_the_picture_is_what_the_command_prints() -> None:
    """The README's picture ends with the text that its command gives, which is the default way to listen."""
    picture = (ROOT / "docs" / "images" / "live.svg").read_text(encoding="utf-8")
    lines = re.findall(r"<text [^>]*>(.*?)</text>", picture.splitlines()[-2])
    command, *shown = [re.sub(r"<.*?>", "", line) for line in lines]
    assert command == "$ loquent listen --file speech/assets/sample.flac"
    assert command.removeprefix("$ ") in (ROOT / "README.md").read_text(encoding="utf-8").splitlines()
    sample = read_audio(ROOT / "speech" / "assets" / "sample.flac")
    session = load("tiny.en").session(sample_rate=sample.sample_rate)
    said = [event.text for event in session.push(sample) + session.finish() if isinstance(event, Final)]
    assert " ".join(" ".join(shown).split()) == " ".join(said)


@pytest.mark.parametrize("path", [*PAGES, *CARDS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_links_lead_somewhere(path: Path) -> None:
    for target in re.findall(r"\]\(([^)\s]+)\)", path.read_text(encoding="utf-8")):
        if "://" in target:
            continue
        file, _, anchor = target.partition("#")
        linked = (path.parent / file).resolve() if file else path
        assert linked.exists(), target
        if anchor:
            assert anchor in anchors(linked), target


@pytest.mark.parametrize("path", [*PAGES, *CARDS], ids=lambda path: path.relative_to(ROOT).as_posix())
def test_files_and_modules_named_exist(path: Path) -> None:
    """Files are named by their paths from the root, modules by their imports."""
    text = path.read_text(encoding="utf-8").partition("### Upgrade notes")[0]  # which name what was there before
    files = set(re.findall(r"`((?:kernels|speech|asr|translate|recipes|benchmarks|tests|examples)/[\w./-]+)", text))
    assert not {name for name in files if not (ROOT / name).exists()}
    modules = set(re.findall(r"(?<![\w.])loquent((?:\.[a-z]\w*)+)", text))
    assert not {name for name in modules if not is_module_or_in_one(name)}


def is_module_or_in_one(name: str) -> bool:
    """Whether a dotted name within `loquent` is that of a package, a module, or something in a module."""
    path = ROOT / name.strip(".").replace(".", "/")
    return path.is_dir() or path.with_suffix(".py").is_file() or path.parent.with_suffix(".py").is_file()


def anchors(path: Path) -> set[str]:
    """Anchors of a page's headings, as code forges make them."""
    headings = re.findall(r"^#+ (.+)$", path.read_text(encoding="utf-8"), re.MULTILINE)
    return {re.sub(r"[^\w\- ]", "", heading.lower()).strip().replace(" ", "-") for heading in headings}


def test_every_page_is_on_the_map() -> None:
    linked = {(ROOT / "docs" / target).resolve() for target in re.findall(r"\]\(([^)#]+\.md)\)", page("index.md"))}
    assert linked == set((ROOT / "docs").rglob("*.md")) - {ROOT / "docs" / "index.md"}


def flags(parser: argparse.ArgumentParser) -> set[str]:
    return {flag for action in parser._actions if action.help != argparse.SUPPRESS for flag in action.option_strings}


def test_flags_of_the_command_line() -> None:
    sections = re.split(r"^## ", page("reference/cli.md"), flags=re.MULTILINE)[1:]
    told = {section.splitlines()[0]: set() for section in sections}
    shared: dict[str, set[str]] = {}
    for section in sections:
        title = section.splitlines()[0]
        for row in re.findall(r"^\| (`-.+?) \|", section, re.MULTILINE):
            told[title] |= set(re.findall(r"`(--?[\w-]+)", row))
        if title == "Flags that commands share":
            for name, group in re.findall(r"^\*\*(\w+)\*\*(.+?)(?=^\*\*|\Z)", section, re.MULTILINE | re.DOTALL):
                rows = re.findall(r"^\| (`-.+?) \|", group, re.MULTILINE)
                shared[name.lower()] = {flag for row in rows for flag in re.findall(r"`(--?[\w-]+)", row)}
    parser = _parser()
    assert told["`loquent`"] == flags(parser)
    groups = {
        "transcribe": "model streaming language translation decoding",
        "listen": "model streaming language translation",
        "serve": "model streaming",
        "corpus transcribe": "corpus model language decoding",
        "corpus speak": "corpus",
        "corpus translate": "corpus",
        "talk": "model streaming",
    }
    for name, command in commands_of(parser).items():
        (title,) = (title for title in told if title.startswith(f"`loquent {name}"))
        expected = told[title].union(*(shared[group] for group in groups.get(name, "").split()))
        assert flags(command) - {"-h", "--help"} == expected, name


def test_flags_in_examples_exist() -> None:
    known = {flag for command in commands_of(_parser()).values() for flag in flags(command)} | flags(_parser())
    for path in [*PAGES, *CARDS]:
        for line in re.findall(r"^(?:\w+=\S+ )?(?:.*\| )?loquent .+$", path.read_text(encoding="utf-8"), re.MULTILINE):
            used = set(re.findall(r"(?<!\S)--[\w-]+", line.split(" #")[0]))
            assert used <= known, line


def commands_of(parser: argparse.ArgumentParser) -> dict[str, argparse.ArgumentParser]:
    """By name; in place of one that has commands of its own, those."""
    choices = next((action.choices for action in parser._actions if isinstance(action.choices, dict)), {})
    found = {}
    for name, command in choices.items():
        inner = {f"{name} {more}": one for more, one in commands_of(command).items()}
        found |= inner or {name: command}
    return found


def fields(kind: type) -> set[str]:
    """Names of a dataclass's fields, by which users know them."""
    public = {field: name for name, field in getattr(kind, "aliases", {}).items()}
    return {public.get(field.name, field.name) for field in dataclasses.fields(kind)}


@pytest.mark.parametrize(
    ("name", "heading", "expected"),
    [
        ("reference/python.md", "### `TranscribeOptions`", fields(TranscribeOptions)),
        ("reference/python.md", "### `StreamingOptions`", fields(StreamingOptions)),
        ("how-to/serve.md", "## Limits", fields(Limits)),
        ("reference/protocol.md", "## Close codes", set(CLOSE_CODES)),
        ("reference/protocol.md", "## Audio", set(ENCODINGS)),
    ],
)
def test_tables_are_complete(name: str, heading: str, expected: set[str]) -> None:
    table = page(name).split(heading + "\n")[1].split("\n#")[0].split("|---", 1)[1]
    cells = re.findall(r"^\| (`\w+`(?:, `\w+`)*) \|", table, re.MULTILINE)
    assert {entry for cell in cells for entry in re.findall(r"\w+", cell)} == expected


def test_fields_of_start() -> None:
    told = re.findall(
        r"^\| `(\w+)` \|", between("reference/protocol.md", "All fields of `start`", "Instead of `start`"), re.M
    )
    assert set(told) == fields(Start)


def test_messages_of_the_protocol() -> None:
    """Those that a client sends: the protocol names them when it gets another one."""
    table = between("reference/protocol.md", "## Client to server", "All fields")
    told = re.findall(r"^\| `(\w+)` \|", table, re.MULTILINE)
    (failure,) = ServerProtocol().receive_text('{"type": "no such type"}')
    assert isinstance(failure, Fail)
    assert set(told) == set(re.findall(r"'(\w+)'", failure.message.partition("expected")[2]))


def test_methods_of_streams_and_clients() -> None:
    text = page("reference/python.md")
    for kind in (Stream, Engine, Pipeline, Scheduler, Task, ClientStream):
        public = {name for name in vars(kind) if not name.startswith("_")}
        internal = {"collect", "compute", "deliver", "abort", "release", "touch", "next_deadline", "streams"}
        assert not {name for name in public - internal if not re.search(rf"\b{name}\b", text)}, kind.__name__


def test_the_picture_of_the_folders_has_every_package() -> None:
    picture = between("architecture.md", "## Folders and imports", "```\n\n")
    packages = {
        path.parent
        for layer in ("kernels", "speech", "asr", "tts", "translate", "recipes")
        for path in (ROOT / layer).rglob("*.py")
    }
    drawn: set[Path] = set()
    above: list[str] = []
    for bars, name in re.findall(r"^((?:│ )*(?:  )?)(\w+)/ ", picture, re.MULTILINE):
        depth = len(bars) // 2
        above = [*above[:depth], name]
        drawn.add(ROOT.joinpath(*above))
    assert drawn == packages


def between(name: str, first: str, last: str) -> str:
    """The part of a page after one text and before another."""
    return page(name).partition(first)[2].partition(last)[0]


def test_close_codes() -> None:
    rows = re.findall(r"^\| `(\w+)` \| (\d{4}) \|", page("reference/protocol.md"), re.MULTILINE)
    assert {name: int(code) for name, code in rows} == CLOSE_CODES


def test_defaults_of_limits() -> None:
    for name, default in re.findall(r"^\| `(\w+)` \| (\d+(?:\.\d+)?|none)", page("how-to/serve.md"), re.MULTILINE):
        assert getattr(Limits(), name) == (None if default == "none" else float(default)), name


def test_events() -> None:
    told = dict(re.findall(r"^\| `(\w+)` \| `(\w+)` \|", page("reference/events.md"), re.MULTILINE))
    assert told == {kind.__name__: kind.type for kind in Event.__subclasses__()}


def test_metrics() -> None:
    told = set(re.findall(r"`(loquent_\w+?)(?:_total)?(?:\{[\w,]+\})?`", page("how-to/serve.md")))
    assert told == {family.name for family in Metrics().registry.collect()}
