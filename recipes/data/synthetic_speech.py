"""Sentences read by many synthetic voices: a corpus for training.

    python -m loquent.recipes.data.synthetic_speech sentences.txt $LOQUENT_DATA/more/synthetic

reads each line in a voice drawn at random, which resampling, tempo and foreign accents make many, and writes
``manifest.jsonl`` into the folder.
"""

from __future__ import annotations

import argparse
import random
import subprocess
import sys
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from pathlib import Path

from tqdm import tqdm

from loquent.recipes.data.manifest import SAMPLE_RATE, Utterance, write_manifest
from loquent.recipes.data.synthetic_voices import KOKORO, FliteVoice, HibariVoice, KokoroVoice, Voice
from loquent.recipes.data.text_lines import read_lines
from loquent.speech.audio.files import write_audio

ACCENTED = 0.5  # share of hibari's sentences; Kokoro's voices have their own
VOICES: Mapping[str, Callable[[str], Voice]] = {
    "hibari": lambda _: HibariVoice(ACCENTED),
    "flite": lambda _: FliteVoice(),
    "kokoro": lambda where: KokoroVoice(where or KOKORO),
}


def main(arguments: Sequence[str] | None = None) -> None:
    """Read sentences aloud, and write the manifest."""
    parser = argparse.ArgumentParser(
        prog="python -m loquent.recipes.data.synthetic_speech", description=__doc__.splitlines()[0] if __doc__ else None
    )
    parser.add_argument("texts", type=Path, help="English sentences, one a line; .zst is unpacked")
    parser.add_argument("folder", type=Path, help="where the recordings and their manifest go")
    parser.add_argument(
        "--voices",
        nargs="+",
        default=["hibari", "flite"],
        metavar="VOICE",
        help=f"{', '.join(VOICES)}, or kokoro=FOLDER; each reads as many sentences as another",
    )
    parser.add_argument("--seed", type=int, default=1, help="of what is drawn")
    given = parser.parse_args(arguments)
    for voice in given.voices:
        if voice.partition("=")[0] not in VOICES:
            parser.error(f"no voice {voice!r}; expected {', '.join(VOICES)}, or kokoro=FOLDER")
    try:
        texts = [text.strip() for text in read_lines(given.texts) if text.strip()]
        voices = [VOICES[name](where) for name, _, where in (voice.partition("=") for voice in given.voices)]
    except (OSError, subprocess.CalledProcessError) as error:
        sys.exit(str(error))
    rows = list(read_aloud(texts, voices, given.folder, given.seed))
    write_manifest(given.folder / "manifest.jsonl", rows)
    hours = sum(row.duration for row in rows) / 3600
    print(f"{given.folder / 'manifest.jsonl'}: {len(rows)} recordings, {hours:.2f} h")


def read_aloud(texts: Iterable[str], voices: Sequence[Voice], folder: Path, seed: int) -> Iterator[Utterance]:
    """Read texts in turns of the voices; writes FLAC into the folder and yields the rows of a manifest, which
    name no speakers: hardly two are of the same."""
    folder.mkdir(parents=True, exist_ok=True)
    for number, text in enumerate(tqdm(texts, desc=folder.name, unit="rec", mininterval=1, leave=False)):
        voice = voices[number % len(voices)]
        samples = voice(text, random.Random(f"{seed} {number} {text}"))
        path = folder / f"{number:06d}.flac"
        write_audio(path, samples, SAMPLE_RATE)
        extra = {"source": voice.source, "licence": voice.licence}
        duration = round(len(samples) / SAMPLE_RATE, 4)
        yield Utterance(str(path), text, duration, id="", language="en", split="train", extra=extra)


if __name__ == "__main__":
    main()
