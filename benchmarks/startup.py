"""From the command to the text of one short recording, next to faster-whisper: processor time and peak memory.

    python benchmarks/startup.py --models tiny.en base

Every run is a process of its own, on one thread, and the programs take turns: ``loquent transcribe``, faster-whisper in
int8 with the same weights and options, and a process that does no more than import torch, which loquent cannot do
without: what that one takes, its end included, is subtracted from loquent's. The first run of loquent finds no compiled
kernels, the others do. Time is that of the processor, user and system. No ratio is printed where the texts differ.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
import tempfile
from dataclasses import dataclass
from pathlib import Path
from statistics import median

from loquent.speech.hub import resolve

sys.path.insert(0, str(Path(__file__).parent))
from text_normalizer import normalize_english

SAMPLE = Path(__file__).parent.parent / "speech" / "assets" / "sample.flac"
FASTER_WHISPER = """
import sys
from faster_whisper import WhisperModel
folder, recording, beam = sys.argv[1:]
model = WhisperModel(folder, device="cpu", compute_type="int8", cpu_threads=1)
segments, _ = model.transcribe(recording, language="en", beam_size=int(beam))
print(*(segment.text for segment in segments))
"""


@dataclass(frozen=True)
class Run:
    """What one process printed and took."""

    text: str
    cpu_s: float
    peak_mib: float


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--models", nargs="+", default=["tiny.en", "base"], help="CTranslate2 weights (both read them)")
    parser.add_argument("--recording", type=Path, default=SAMPLE, help="English, of less than 30 s")
    parser.add_argument("--beam", type=int, default=5)
    parser.add_argument("--rounds", type=int, default=3, help="runs of each program; their median counts")
    options = parser.parse_args()
    for model in options.models:
        folder = str(resolve(model).path)
        # In a cache of our own, so that the first run finds no kernels. The weights are given as a folder: they are
        # joined and verified already.
        with tempfile.TemporaryDirectory() as cache:
            compare(model, folder, options, {**os.environ, "OMP_NUM_THREADS": "1", "LOQUENT_CACHE": cache})


def compare(model: str, folder: str, options: argparse.Namespace, environment: dict[str, str]) -> None:
    """Print one model's table."""
    recording, beam = str(options.recording), str(options.beam)
    flags = ["--model", folder, "--language", "en", "--beam-size", beam, "--threads", "1", "--verbose", "False"]
    loquent = ["-m", "loquent.speech", "transcribe", recording, *flags]
    cold = run(loquent, environment)
    torch, warm, theirs = [], [], []
    for _ in range(options.rounds):
        torch.append(run(["-c", "import torch"], environment))
        warm.append(run(loquent, environment))
        theirs.append(run(["-c", FASTER_WHISPER, folder, recording, beam], environment))
    imported, reference = middle(torch), middle(theirs)
    rows = {
        "import torch": imported,
        "faster-whisper, int8": reference,
        "loquent": middle(warm),
        "loquent, kernels not compiled yet": cold,
    }
    print(f"\n{model}, beam {beam}, one thread, median of {options.rounds}")
    print(f"{'':36}{'CPU s':>8}{'peak MiB':>10}")
    for name, one in rows.items():
        print(f"{name:36}{one.cpu_s:8.2f}{one.peak_mib:10.0f}")
    texts = {normalize_english(one.text) for one in (cold, *warm, *theirs)}
    if len(texts) > 1:
        print("the texts differ, so no ratios:", *sorted(texts), sep="\n  ")
        return
    for name in ("loquent", "loquent, kernels not compiled yet"):
        one = rows[name]
        print(
            f"{name} without import torch, against faster-whisper: "
            f"CPU time x{(one.cpu_s - imported.cpu_s) / reference.cpu_s:.2f}, "
            f"peak memory x{(one.peak_mib - imported.peak_mib) / reference.peak_mib:.2f}"
        )


def run(arguments: list[str], environment: dict[str, str]) -> Run:
    """Run Python to its end."""
    process = subprocess.Popen([sys.executable, *arguments], env=environment, stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    text = process.stdout.read()
    _, status, usage = os.wait4(process.pid, 0)
    if status:
        raise SystemExit(f"{' '.join(arguments[:3])} … ended with status {os.waitstatus_to_exitcode(status)}")
    return Run(" ".join(text.split()), usage.ru_utime + usage.ru_stime, usage.ru_maxrss / 1024)


def middle(runs: list[Run]) -> Run:
    """The medians of some runs, with the first one's text."""
    return Run(runs[0].text, median(one.cpu_s for one in runs), median(one.peak_mib for one in runs))


if __name__ == "__main__":
    main()
