"""The programs in `examples/` do what they say.

They are run as programs. Most share this process and one model; the server has a process of its own, and so has what
goes on in another.
"""

from __future__ import annotations

import ast
import contextlib
import functools
import io
import os
import re
import runpy
import socket
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from loquent.asr import Recognizer
from loquent.speech.audio.files import read_audio, write_audio

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
ONE_THREAD = os.environ | {"OMP_NUM_THREADS": "1", "PYTHONIOENCODING": "utf-8"}
LONGEST = 95  # lines; all but the one that defines a task have fewer than 60


@pytest.fixture
def recording(tmp_path: Path) -> Path:
    """The first four seconds of the sample: one sentence."""
    sample = read_audio(ROOT / "speech" / "assets" / "sample.flac")
    path = tmp_path / "recording.flac"
    write_audio(path, sample.samples[: 4 * sample.sample_rate], sample.sample_rate)
    return path


def command(name: str, *arguments: object) -> list[str]:
    return [sys.executable, str(ROOT / "examples" / f"{name}.py"), *map(str, arguments)]


@pytest.fixture(scope="module")
def _one_model() -> Iterator[None]:
    """The programs load the real model, once for all tests."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Recognizer, "from_pretrained", functools.cache(Recognizer.from_pretrained))
        yield


@pytest.fixture
def run(_one_model: None, monkeypatch: pytest.MonkeyPatch) -> Callable[..., str]:
    """Function that runs an example in this process and gives what it prints."""

    def run(name: str, *arguments: object) -> str:
        _, program, *given = command(name, *arguments)
        monkeypatch.setattr(sys, "argv", [program, *given])
        with contextlib.redirect_stdout(io.StringIO()) as printed:
            runpy.run_path(program, run_name="__main__")
        return printed.getvalue()

    return run


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


SENTENCE = words("Streaming recognition writes each word down while you are still speaking.")


def test_microphone_captions(run: Callable[..., str], recording: Path) -> None:
    shown = run("microphone_captions", recording)
    assert words(shown.rpartition("\x1b[K")[2]) == SENTENCE


def test_many_streams(run: Callable[..., str], recording: Path) -> None:
    printed = run("many_streams", recording, 3)
    assert "3 streams of 4.0 s" in printed
    assert words(printed.rpartition("1 text among 3: ")[2]) == SENTENCE


def test_save_and_resume(run: Callable[..., str], recording: Path, tmp_path: Path) -> None:
    saved = tmp_path / "stream.snapshot"
    first = run("save_and_resume", "begin", recording, saved).partition(" … ")[0]
    resume = command("save_and_resume", "resume", recording, saved)
    resumed = subprocess.run(resume, capture_output=True, encoding="utf-8", env=ONE_THREAD, timeout=120)
    assert resumed.returncode == 0, resumed.stderr
    begin, _, rest = resumed.stdout.partition(" …")
    assert begin == "going on at 2.00 s"
    assert words(first + rest) == SENTENCE
    assert words(first)
    assert words(rest)


def test_pipeline(run: Callable[..., str], recording: Path) -> None:
    heard, corrected = run("pipeline", recording, "word=term").strip().splitlines()
    assert words(heard.removeprefix("hear:")) == SENTENCE
    assert words(corrected.removeprefix("correct:")) == ["term" if word == "word" else word for word in SENTENCE]


def test_server_and_client(run: Callable[..., str], recording: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LOQUENT_API_KEY", "secret")
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    server = subprocess.Popen(command("serve_app", port), env=ONE_THREAD | {"LOQUENT_API_KEY": "secret"})
    try:
        wait_until_listening(server, port)
        assert words(run("websocket_client", f"ws://127.0.0.1:{port}", recording)) == SENTENCE
    finally:
        server.terminate()
        server.wait(60)


def wait_until_listening(server: subprocess.Popen[bytes], port: int) -> None:
    while True:
        assert server.poll() is None, "the server has ended"
        try:
            return socket.create_connection(("127.0.0.1", port), timeout=10).close()
        except OSError:
            time.sleep(0.1)


@pytest.mark.parametrize("path", EXAMPLES, ids=lambda path: path.stem)
def test_examples_are_short_and_say_how_to_run_them(path: Path) -> None:
    source = path.read_text(encoding="utf-8")
    assert f"python examples/{path.name}" in (ast.get_docstring(ast.parse(source)) or "")
    assert source.count("\n") < LONGEST


def test_every_example_is_run_here() -> None:
    source = Path(__file__).read_text(encoding="utf-8")
    assert [path.stem for path in EXAMPLES if f'("{path.stem}"' not in source] == []
