"""A corpus on a Ray cluster: the results of one process, also after a kill. Ray is an extra of its own."""

import contextlib
import json
import os
import re
import signal
import subprocess
import sys
import time
from collections.abc import Iterator
from importlib import resources
from pathlib import Path

import pytest

from loquent.speech.audio.files import read_audio, write_audio
from loquent.speech.commands.cli import main

os.environ["RAY_USAGE_STATS_ENABLED"] = "0"
ray = pytest.importorskip("ray", reason='a cluster takes pip install ".[ray]"')

SAMPLE = Path(str(resources.files("loquent.speech") / "assets" / "sample.flac"))
FAST = ["--model", "tiny.en", "--beam-size", "1", "--temperature-increment-on-fallback", "None"]
COMMAND = [sys.executable, "-c", "import sys; from loquent.speech.commands.cli import main; sys.exit(main())"]


@pytest.fixture(scope="module")
def cluster():
    """One node, which outlives the commands that use it; gives its address and the folder of its session."""
    context = ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield context.address_info["address"], context.address_info["session_dir"]
    ray.shutdown()


@pytest.fixture(scope="module")
def corpus(tmp_path_factory) -> Path:
    """Five pieces of the sample, each as long as a batch, so the manifest says, and one that is missing."""
    folder = tmp_path_factory.mktemp("corpus")
    sample = read_audio(SAMPLE)
    piece = len(sample.samples) // 5
    for number in range(5):
        samples = sample.samples[number * piece : (number + 1) * piece]
        write_audio(folder / f"{number}.wav", samples, sample.sample_rate)
    rows = [{"path": f"{number}.wav", "duration": 119 - number} for number in range(6)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


@pytest.fixture(scope="module")
def expected(corpus, tmp_path_factory) -> str:
    """The results of one process without Ray."""
    output = tmp_path_factory.mktemp("expected")
    assert main(["corpus", "transcribe", str(corpus), "--output", str(output), *FAST]) == 1
    return (output / "results.jsonl").read_text()


def command(corpus: Path, output: Path, address: str, *more: str) -> list[str]:
    on_ray = ["--batch-size", "1", "--ray", address, "--workers", "1"]
    return [*COMMAND, "corpus", "transcribe", str(corpus), "--output", str(output), *FAST, *on_ray, *more]


@contextlib.contextmanager
def waiting_for(pipe: Path, results: Path, arguments: list[str]) -> Iterator[subprocess.Popen]:
    """The command while it waits for a recording that is a pipe; what comes before it has its results.

    Afterwards the recording is there.
    """
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen(arguments)
    try:
        limit = time.monotonic() + 120
        while not results.exists() or results.read_bytes().count(b"\n") < int(pipe.stem):
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < limit, "no results within 120 s"
            time.sleep(0.02)
        pipe.unlink()
        pipe.write_bytes(content)
        yield process
        process.wait(120)
    finally:
        process.kill()
        process.wait()
        pipe.unlink(missing_ok=True)
        pipe.write_bytes(content)


def workers_of(session: str) -> list[int]:
    """The processes of actors of ours on a node."""
    found = []
    for folder in Path("/proc").glob("[0-9]*"):
        with contextlib.suppress(OSError):
            if (folder / "cmdline").read_bytes().startswith(b"ray::MapWorker"):
                parent = re.search(r"^PPid:\s+(\d+)", (folder / "status").read_text(), re.MULTILINE)
                if session.encode() in Path("/proc", parent[1], "cmdline").read_bytes():
                    found.append(int(folder.name))
    return found


def test_the_same_results_after_the_command_was_killed(cluster, corpus, expected, tmp_path, capfd):
    address, _ = cluster
    results = tmp_path / "results.jsonl"
    with waiting_for(corpus / "3.wav", results, command(corpus, tmp_path, address)) as process:
        process.send_signal(signal.SIGKILL)
    assert 3 <= results.read_bytes().count(b"\n") < 6
    assert subprocess.run(command(corpus, tmp_path, address), check=False).returncode == 1  # one is missing
    assert "6 items" in capfd.readouterr().err
    assert results.read_text() == expected


def test_the_same_results_after_a_worker_was_killed(cluster, corpus, expected, tmp_path):
    address, session = cluster
    results = tmp_path / "results.jsonl"
    with waiting_for(corpus / "1.wav", results, command(corpus, tmp_path, address)) as process:
        (worker,) = workers_of(session)
        os.kill(worker, signal.SIGKILL)
    assert process.returncode == 1
    assert results.read_text() == expected


def test_what_ends_the_workers_is_told_in_a_line(cluster, corpus, tmp_path, capfd):
    arguments = command(corpus, tmp_path, cluster[0], "--multilingual")
    assert subprocess.run(arguments, check=False).returncode == 1
    assert "knows English only" in capfd.readouterr().err.splitlines()[-1]
