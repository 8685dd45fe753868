"""The programs in `examples/` do what they say, each in a process of its own."""

from __future__ import annotations

import ast
import os
import re
import socket
import subprocess
import sys
import time
from pathlib import Path

import pytest

from loquent.speech.audio.files import read_audio, write_audio

ROOT = Path(__file__).parents[1]
EXAMPLES = sorted((ROOT / "examples").glob("*.py"))
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


def run(name: str, *arguments: object, **variables: str) -> str:
    """What an example prints."""
    environment = {**os.environ, "OMP_NUM_THREADS": "1", **variables}
    ran = subprocess.run(command(name, *arguments), capture_output=True, text=True, env=environment, timeout=120)
    assert ran.returncode == 0, ran.stderr
    return ran.stdout


def words(text: str) -> list[str]:
    return re.findall(r"[a-z]+", text.lower())


SENTENCE = words("Streaming recognition writes each word down while you are still speaking.")


def test_microphone_captions(recording: Path) -> None:
    shown = run("microphone_captions", recording)
    assert words(shown.rpartition("\x1b[K")[2]) == SENTENCE


def test_many_streams(recording: Path) -> None:
    printed = run("many_streams", recording, 3)
    assert "3 streams of 4.0 s" in printed
    assert words(printed.rpartition("1 text among 3: ")[2]) == SENTENCE


def test_save_and_resume(recording: Path, tmp_path: Path) -> None:
    saved = tmp_path / "stream.snapshot"
    first = run("save_and_resume", "begin", recording, saved).partition(" … ")[0]
    begin, _, rest = run("save_and_resume", "resume", recording, saved).partition(" …")
    assert begin == "going on at 2.00 s"
    assert words(first + rest) == SENTENCE
    assert words(first)
    assert words(rest)


def test_pipeline(recording: Path) -> None:
    heard, corrected = run("pipeline", recording, "word=term").strip().splitlines()
    assert words(heard.removeprefix("hear:")) == SENTENCE
    assert words(corrected.removeprefix("correct:")) == ["term" if word == "word" else word for word in SENTENCE]


def test_server_and_client(recording: Path) -> None:
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        port = free.getsockname()[1]
    key = {"LOQUENT_API_KEY": "secret"}
    server = subprocess.Popen(command("serve_app", port), env=os.environ | {"OMP_NUM_THREADS": "1"} | key)
    try:
        wait_until_listening(server, port)
        assert words(run("websocket_client", f"ws://127.0.0.1:{port}", recording, **key)) == SENTENCE
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
