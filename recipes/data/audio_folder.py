"""A folder of recordings with a list of what is said in them, as people have it: CSV, JSON lines, or `audiofolder`.

The list names each recording (relative to itself) and gives its text; the layout with ``metadata.csv`` or
``metadata.jsonl``, in the folder or in ``train/`` and ``test/``, is that of Hugging Face's `audiofolder`.
"""

from __future__ import annotations

import csv
import json
import os
import sys
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

from tqdm import tqdm

from loquent.recipes.data.manifest import ManifestError, Utterance
from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio

FILE_COLUMNS = ("file_name", "file", "filename", "path", "audio", "audio_filepath", "audio_file", "wav")
TEXT_COLUMNS = ("text", "transcription", "transcript", "sentence")
SPEAKER_COLUMNS = ("speaker", "speaker_id", "client_id")
SPLITS = {"train": "train", "validation": "valid", "valid": "valid", "dev": "valid", "test": "eval", "eval": "eval"}
LISTS = (".csv", ".tsv", ".jsonl")


class LeftOut(NamedTuple):
    """A recording that cannot be used."""

    path: str
    why: str


@dataclass(frozen=True)
class FolderOptions:
    """Where the recordings and their texts are.

    Raises:
        ValueError: a share that holds out everything or nothing.
    """

    folder: str  # of recordings with a list, or the list
    file_column: str | None = None  # of the list; by default the first of `FILE_COLUMNS` that it has
    text_column: str | None = None  # likewise, of `TEXT_COLUMNS`
    held_out: float = 0.2  # share of the recordings to judge by (of the speakers, where many are named)

    def __post_init__(self) -> None:
        if not 0 < self.held_out < 1:
            raise ValueError(f"held_out: expected a share above 0 and below 1, got {self.held_out}")


def read_folder(options: FolderOptions, language: str, longest_s: float) -> tuple[list[Utterance], list[LeftOut]]:
    """The recordings that can be used, in the order of the list, and those that cannot.

    Every recording is read once: what is damaged, longer than ``longest_s``, or has no text, is left out.

    Args:
        language: of rows that do not say theirs.
        longest_s: of a recording.

    Raises:
        ManifestError: there is no list, it lacks a column, or it names recordings that are not there.
    """
    rows: list[Utterance] = []
    left_out: list[LeftOut] = []
    listed = [row for file, split in _lists(Path(options.folder)) for row in _rows(file, split, options, language)]
    if missing := [row.path for row in listed if not os.path.isfile(row.path)]:
        more = f", nor are {len(missing) - 1} others" if len(missing) > 1 else ""
        raise ManifestError(
            f"{missing[0]} is listed in {options.folder} but is not there{more}; names in the list are relative to it"
        )
    for row in tqdm(listed, desc="reading recordings", unit="rec", file=sys.stderr, mininterval=1, leave=False):
        if not any(character.isalnum() for character in row.text):
            left_out.append(LeftOut(row.path, "it has no text"))
            continue
        try:
            seconds = read_audio(row.path).duration_s
        except AudioError as error:
            left_out.append(LeftOut(row.path, str(error)))
            continue
        if seconds > longest_s:
            left_out.append(LeftOut(row.path, f"it has {seconds:.1f} s, more than {longest_s:.1f}; cut it"))
            continue
        rows.append(Utterance(row.path, row.text, seconds, row.id, row.language, row.speaker, row.split))
    return rows, left_out


def _lists(path: Path) -> list[tuple[Path, str | None]]:
    """The lists in a folder, with the split that each is of."""
    if path.is_file():
        if path.suffix.lower() not in LISTS:
            raise ManifestError(f"{path} is not a list of recordings; expected *.csv, *.tsv or *.jsonl")
        return [(path, None)]
    if not path.is_dir():
        raise ManifestError(f"there is no folder {os.fspath(path)!r}; expected one with recordings and a list of texts")
    parts = [(part, SPLITS.get(part.name.lower())) for part in sorted(path.iterdir()) if part.is_dir()]
    found: list[tuple[Path, str | None]] = [(file, split) for part, split in parts if split for file in _found(part)]
    if found and not _found(path):
        return found
    lists = _found(path) or sorted(file for file in path.iterdir() if file.suffix.lower() in LISTS)
    if len(lists) != 1:
        names = ", ".join(file.name for file in lists) or "no list"
        raise ManifestError(
            f"{path} has {names}; expected one metadata.csv or metadata.jsonl with the columns file_name and text. "
            "A list of another name can be given in place of the folder"
        )
    return [(lists[0], None)]


def _found(folder: Path) -> list[Path]:
    return [folder / f"metadata{ending}" for ending in LISTS if (folder / f"metadata{ending}").is_file()]


def _rows(file: Path, split: str | None, options: FolderOptions, language: str) -> Iterator[Utterance]:
    """The rows of a list, with a duration of 0."""
    try:
        values = list(_jsonl(file) if file.suffix.lower() == ".jsonl" else _csv(file))
    except UnicodeDecodeError as error:
        raise ManifestError(f"{file} is not UTF-8 ({error}); save it as UTF-8") from error
    columns = list(dict.fromkeys(name for _, row in values for name in row))
    name_of_file = _column(file, "the recordings' names", columns, FILE_COLUMNS, options.file_column, "file_column")
    name_of_text = _column(file, "the texts", columns, TEXT_COLUMNS, options.text_column, "text_column")
    for number, row in values:
        path, text = row.get(name_of_file), row.get(name_of_text)
        if not isinstance(path, str) or not path.strip():
            raise ManifestError(f"{file}:{number} names no recording in {name_of_file!r}")
        said = str(row.get("split") or split or "").lower()
        if said and said not in SPLITS and said not in SPLITS.values():
            raise ManifestError(f"{file}:{number} is of the split {said!r}; expected one of {', '.join(SPLITS)}")
        speaker = next((str(row[name]) for name in SPEAKER_COLUMNS if row.get(name)), None)
        yield Utterance(
            os.path.join(file.parent, path.strip()),
            " ".join(str(text or "").split()),
            0.0,
            id=f"{file.parent.name}/{path.strip()}",
            language=str(row.get("language") or language),
            speaker=speaker,
            split=SPLITS.get(said, said or None),
        )


def _column(file: Path, what: str, columns: list[str], known: tuple[str, ...], chosen: str | None, option: str) -> str:
    wanted = known if chosen is None else (chosen,)
    names = {name.lower(): name for name in reversed(columns)}
    for name in wanted:
        if name.lower() in names:
            return names[name.lower()]
    raise ManifestError(
        f"{file} has the columns {', '.join(columns) or '(none)'}; expected {what} in "
        f"{'one of ' if len(wanted) > 1 else ''}{', '.join(wanted)}. Name the column: data.{option}=…"
    )


def _jsonl(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    for number, line in enumerate(file.read_text(encoding="utf-8-sig").splitlines(), start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
        except json.JSONDecodeError as error:
            raise ManifestError(f"{file}:{number} is not JSON: {error}") from error
        if not isinstance(row, dict):
            raise ManifestError(f"{file}:{number} holds a {type(row).__name__}; expected an object for each recording")
        yield number, row


def _csv(file: Path) -> Iterator[tuple[int, Mapping[str, Any]]]:
    """Rows of a table with a heading; what separates its columns is what splits the heading most."""
    with file.open(encoding="utf-8-sig", newline="") as lines:
        heading = lines.readline()
        lines.seek(0)
        delimiter = max(",\t;|", key=heading.count)
        # In tables separated by tabs, as Common Voice's, a quotation mark is part of the text.
        plain = delimiter == "\t"
        reader = csv.DictReader(lines, delimiter=delimiter, quoting=csv.QUOTE_NONE if plain else csv.QUOTE_MINIMAL)
        for row in reader:
            if None in row:
                raise ManifestError(
                    f"{file}:{reader.line_num} has more columns than the heading; put texts with {delimiter!r} into "
                    "double quotation marks"
                )
            yield reader.line_num, {name.strip(): value for name, value in row.items()}
