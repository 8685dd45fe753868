"""Telephone numbers of the alphanumeric audio dataset (Sakshee Patil 2024): seventy students, most of them from India.

It is at https://github.com/Sakshee5/alphanumeric-audio-dataset.
"""

from __future__ import annotations

import csv
import hashlib
import os
from collections.abc import Iterator
from pathlib import Path

from loquent.recipes.commands.coffee_grammar import DIGITS
from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.speech.audio.files import duration

LENGTH = 10  # digits of a number; one of nine has lost a zero at its beginning, in a spreadsheet
SAID_OTHERWISE = frozenset(  # another number, or "double" and "triple", by what Whisper base writes
    {
        "R_14L9qNxUlipFmsF",
        "R_1bhWwiBjHlA1GcF",
        "R_34Kh357EGklz2X7",
        "R_41aAifnTBI6jslp",
        "R_4shv1y28wS6SaPv",
        "R_5jebEVEgcwRTOcO",
    }
)


def read_phone_numbers(folder: str | os.PathLike[str]) -> list[Utterance]:
    """Its numbers, digit by digit: the split "train" of nine tenths of the people, "eval" of the others.

    Raises:
        ManifestError: the folder is not a copy of the repository.
    """
    return list(_rows(Path(folder)))


def _rows(folder: Path) -> Iterator[Utterance]:
    file = folder / "metadata.csv"
    if not file.is_file():
        raise ManifestError(
            f"no {str(file)!r}: expected a copy of https://github.com/Sakshee5/alphanumeric-audio-dataset"
        )
    with file.open(encoding="utf-8", newline="") as lines:
        for line in csv.DictReader(lines):
            speaker, path, number = line["Response_ID"], folder / line["file_name"], line["Number"]
            if path.parent.name != "Numbers" or speaker in SAID_OTHERWISE:
                continue
            if not path.is_file():
                raise ManifestError(f"{file}: no recording {str(path)!r}")
            digits = number.zfill(LENGTH) if len(number) == LENGTH - 1 else number
            yield Utterance(
                str(path),
                " ".join(DIGITS[int(digit)] for digit in digits),
                duration(path),
                id=f"phone_numbers/{speaker}",
                speaker=speaker,
                split="eval" if hashlib.sha256(speaker.encode()).digest()[0] < 26 else "train",
                set="phone_numbers",
                extra={"source": "alphanumeric-audio-dataset", "licence": "MIT"},
            )
