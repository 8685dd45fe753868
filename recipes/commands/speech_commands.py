"""The digits of Speech Commands (Warden 2018, arXiv 1804.03209): single words, each said by hundreds of people.

The whole corpus is at https://www.tensorflow.org/datasets/catalog/speech_commands (2.3 GB), and a part of it will do: a
folder for each word, with recordings named ``<speaker>_nohash_<number>.wav``.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterator
from itertools import islice
from pathlib import Path

from loquent.recipes.commands.coffee_grammar import DIGITS
from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.speech.audio.files import duration


def read_speech_commands(folder: str | os.PathLike[str], each: int) -> list[Utterance]:
    """At most ``each`` recordings of each digit: the split "eval" of a seventh of the speakers, "train" of the others,
    some of whom the corpus itself keeps for tests.

    Raises:
        ManifestError: a digit has no recordings.
    """
    return [row for word in DIGITS for row in islice(_rows(Path(folder) / word), each)]


def _rows(folder: Path) -> Iterator[Utterance]:
    paths = sorted(folder.glob("*_nohash_*.wav"))
    if not paths:
        raise ManifestError(f"no recordings in {str(folder)!r}: expected Speech Commands, a folder for each word")
    # By a digest, so that a part of them has as many speakers as it can.
    for path in sorted(paths, key=lambda path: hashlib.sha1(path.name.encode()).digest()):
        speaker = path.name.split("_nohash_")[0]
        yield Utterance(
            str(path),
            folder.name,
            duration(path),
            id=f"speech_commands/{folder.name}/{path.stem}",
            speaker=speaker,
            split="eval" if hashlib.sha256(speaker.encode()).digest()[0] < 38 else "train",
            set="speech_commands",
            extra={"source": "speech_commands", "licence": "CC BY 4.0"},
        )
