"""A corpus on a Ray cluster: the results of one process, also after a kill. Ray is an extra of its own."""

import json
import os
import signal
import subprocess
import sys
import time
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
PIPE = "3.wav"


@pytest.fixture(scope="module")
def cluster():
    """One node, which outlives the commands that use it; gives its address."""
    context = ray.init(num_cpus=2, num_gpus=0, include_dashboard=False, log_to_driver=False, logging_level="ERROR")
    yield context.address_info["address"]
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
    rows = [{"path": f"{number}.wav", "duration": 239 - number} for number in range(6)]
    (folder / "manifest.jsonl").write_text("".join(json.dumps(row) + "\n" for row in rows))
    return folder


def test_the_same_results_as_in_one_process_after_a_kill(cluster, corpus, tmp_path, capfd):
    """The command is killed while an actor waits for a recording that is a pipe; the same command then goes on."""
    one_process, on_ray = tmp_path / "one", tmp_path / "ray"
    assert main(["corpus", "transcribe", str(corpus), "--output", str(one_process), *FAST]) == 1
    arguments = [
        "corpus",
        "transcribe",
        str(corpus),
        "--output",
        str(on_ray),
        *FAST,
        "--ray",
        cluster,
        "--workers",
        "1",
    ]
    pipe, results = corpus / PIPE, on_ray / "results.jsonl"
    content = pipe.read_bytes()
    pipe.unlink()
    os.mkfifo(pipe)
    process = subprocess.Popen([*COMMAND, *arguments])
    try:
        limit = time.monotonic() + 120
        while not results.exists() or results.read_bytes().count(b"\n") < 2:
            assert process.poll() is None, "it ended by itself"
            assert time.monotonic() < limit, "no results within 120 s"
            time.sleep(0.02)
        process.send_signal(signal.SIGKILL)
    finally:
        process.kill()
        process.wait()
        pipe.unlink()
        pipe.write_bytes(content)
    assert results.read_bytes().count(b"\n") < 6
    subprocess.run([*COMMAND, *arguments], check=False)
    assert "6 items" in capfd.readouterr().err
    assert results.read_text() == (one_process / "results.jsonl").read_text()


def test_what_ends_the_actors_is_told_in_a_line(cluster, corpus, tmp_path, capfd):
    arguments = [
        "corpus",
        "transcribe",
        str(corpus),
        "--output",
        str(tmp_path),
        *FAST,
        "--multilingual",
        "--ray",
        cluster,
    ]
    assert subprocess.run([*COMMAND, *arguments], check=False).returncode == 1
    assert "knows English only" in capfd.readouterr().err.splitlines()[-1]
