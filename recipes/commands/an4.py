"""AN4, the Census database of Carnegie Mellon University: 84 people say digits, and spell names and addresses.

Its archive is at https://github.com/cmusphinx/an4 (70 MB).
"""

from __future__ import annotations

import os
import re
from collections.abc import Iterator
from pathlib import Path

from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.speech.audio.files import duration

_LINE = re.compile(r"(?:<s> )?(?P<text>.*?)(?: </s>)? \((?P<name>\w+-(?P<speaker>\w+)-b)\)")


def read_an4(folder: str | os.PathLike[str]) -> list[Utterance]:
    """Its recordings: the split "train" of 74 people, "eval" of ten others.

    Raises:
        ManifestError: the folder is not a copy of the repository.
    """
    return list(_rows(Path(folder)))


def _rows(folder: Path) -> Iterator[Utterance]:
    recordings = {path.stem: path for path in folder.glob("wav/*/*/*.wav")}
    for split, listed in (("train", "an4_train"), ("eval", "an4_test")):
        file = folder / "etc" / f"{listed}.transcription"
        if not file.is_file():
            raise ManifestError(f"no {str(file)!r}: expected a copy of https://github.com/cmusphinx/an4")
        for line in file.read_text(encoding="utf-8").splitlines():
            said = _LINE.fullmatch(line.strip())
            if said is None or said["name"] not in recordings:
                raise ManifestError(f"{file}: no recording for the line {line!r}")
            path = str(recordings[said["name"]])
            yield Utterance(
                path,
                said["text"].lower(),
                duration(path),
                id=f"an4/{said['name']}",
                speaker=said["speaker"],
                split=split,
                set="an4",
                extra={"source": "an4", "licence": "BSD-like"},
            )
