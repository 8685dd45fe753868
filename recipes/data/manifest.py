"""Utterances listed in manifests: JSONL beside the recordings, JSONL within a zip archive, or lhotse cuts."""

from __future__ import annotations

import gzip
import io
import json
import os
import zipfile
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.files import read_audio
from loquent.speech.corpus.items import open_archive

SAMPLE_RATE = 16000  # Hz, of everything that recipes read


class ManifestError(ValueError):
    """A manifest that cannot be read, or a row of it that makes no sense."""


@dataclass(frozen=True)
class Utterance:
    """One recording, or a stretch of one, and what is said in it."""

    path: str  # a file, or a member of ``archive``
    text: str
    duration: float  # s
    id: str  # unique among the rows that are used together
    language: str = "en"
    speaker: str | None = None
    split: str | None = None  # such as "train" and "eval"
    set: str = ""  # name of the manifest it comes from
    archive: str | None = None  # zip file that holds ``path``
    start: float | None = None  # s into the recording; None if the utterance is all of it
    silence_s: float = 0.0  # put before it
    extra: Mapping[str, Any] = field(default_factory=dict)  # what else the row says

    def samples(self) -> np.ndarray:
        """Mono float32 samples at 16 kHz, (N,).

        Raises:
            AudioError: the recording is missing or damaged.
        """
        source = (
            self.path if self.archive is None else io.BytesIO(open_archive(self.archive, os.getpid()).read(self.path))
        )
        audio = read_audio(source, SAMPLE_RATE)
        if audio.warnings:  # the text tells more than is there to be heard
            raise AudioError(audio.warnings[-1])
        samples = audio.samples
        if self.start is not None:
            first = round(self.start * SAMPLE_RATE)
            samples = samples[first : first + round(self.duration * SAMPLE_RATE)]
        return np.pad(samples, (round(self.silence_s * SAMPLE_RATE), 0)) if self.silence_s else samples


def read_manifest(path: str | os.PathLike[str], **wanted: Any) -> list[Utterance]:
    """Read a manifest, in the order of its rows.

    Args:
        path: ``*.jsonl`` (paths are relative to it), a folder with ``manifest.jsonl``, ``*.zip`` with
            ``manifest.jsonl`` and the recordings inside, or lhotse cuts (``*cuts*.jsonl``, ``*.jsonl.gz``).
        wanted: as for `select`.

    Raises:
        ManifestError: the file is missing or a row lacks path, text or duration; the message names the row.
    """
    file = Path(path)
    if file.is_dir():
        file = file / "manifest.jsonl"
    if not file.is_file():
        raise ManifestError(f"no manifest at {os.fspath(path)!r}; expected *.jsonl, a folder with one, or *.zip")
    if file.suffix == ".zip":
        rows = _from_zip(file)
    elif file.name.endswith(".jsonl.gz") or "cuts" in file.name:
        rows = _from_cuts(file)
    else:
        rows = _parsed(file.read_text(encoding="utf-8").splitlines(), file)
    return select(rows, **wanted)


def select(
    rows: Iterable[Utterance],
    *,
    split: str | None = None,
    language: str | None = None,
    speakers: Iterable[str] | None = None,
    human_text: bool = False,
    where: Callable[[Utterance], bool] | None = None,
    longest_s: float | None = None,
) -> list[Utterance]:
    """The rows that are wanted.

    Args:
        split, language: what the row has to say.
        speakers: only these.
        human_text: leave out rows whose text a machine wrote (``text_source`` is given) unless it was checked against
            labels and agreed (``slot_match`` is 1).
        where: any other condition.
        longest_s: leave out longer ones.
    """
    allowed = None if speakers is None else set(speakers)
    return [
        row
        for row in rows
        if (split is None or row.split == split)
        and (language is None or row.language == language)
        and (allowed is None or row.speaker in allowed)
        and (not human_text or "text_source" not in row.extra or row.extra.get("slot_match") == 1)
        and (longest_s is None or row.duration <= longest_s)
        and (where is None or where(row))
    ]


def write_manifest(path: Path, rows: Iterable[Utterance]) -> None:
    """Write JSONL for recordings in the same folder or below; replaces the file at once."""
    lines = []
    for row in rows:
        if row.archive is not None or row.start is not None or row.silence_s:
            raise ManifestError(f"{row.id}: only whole files can be listed in a JSONL manifest")
        known = {
            name: getattr(row, name)
            for name in ("text", "duration", "language", "speaker", "split")
            if getattr(row, name) is not None
        }
        relative = os.path.relpath(row.path, path.parent)
        lines.append(json.dumps({"path": relative, **known, **row.extra}, ensure_ascii=False))
    unfinished = path.with_name(path.name + ".part")
    unfinished.write_text("".join(line + "\n" for line in lines), encoding="utf-8")
    unfinished.replace(path)


_FIELDS = ("path", "text", "duration", "language", "speaker", "split")


def _parsed(lines: Iterable[str], file: Path, archive: str | None = None) -> Iterator[Utterance]:
    name = file.stem if file.stem != "manifest" else file.parent.name
    for number, line in enumerate(lines, start=1):
        if not line.strip():
            continue
        try:
            row = json.loads(line)
            path, text, duration = str(row["path"]), str(row["text"]), float(row["duration"])
        except KeyError as error:
            raise ManifestError(f"{file}:{number} lacks {error}; a row has path, text and duration") from None
        except (ValueError, TypeError) as error:
            raise ManifestError(f"{file}:{number} is not a row of a manifest: {error}") from error
        yield Utterance(
            path if archive else os.path.join(file.parent, path),
            text,
            duration,
            id=f"{name}/{path}",
            language=row.get("language", "en"),
            speaker=row.get("speaker"),
            split=row.get("split"),
            set=name,
            archive=archive,
            extra={key: value for key, value in row.items() if key not in _FIELDS},
        )


def _from_zip(file: Path) -> Iterator[Utterance]:
    with zipfile.ZipFile(file) as archive:
        try:
            lines = archive.read("manifest.jsonl").decode().splitlines()
        except KeyError:
            raise ManifestError(f"{file} has no manifest.jsonl inside") from None
    return _parsed(lines, file, archive=os.fspath(file))


def _from_cuts(file: Path) -> Iterator[Utterance]:
    """Cuts of one recording with one channel, one utterance for each supervision. Read without lhotse: plain JSON."""
    with gzip.open(file, "rt", encoding="utf-8") if file.suffix == ".gz" else file.open(encoding="utf-8") as lines:
        for number, line in enumerate(lines, start=1):
            cut = json.loads(line)
            try:
                if cut["type"] not in ("MonoCut", "Cut"):
                    raise ManifestError(f"{file}:{number} is a {cut['type']}; expected a MonoCut of one recording")
                (source,) = cut["recording"]["sources"]
                if source["type"] != "file":
                    raise ManifestError(f"{file}:{number} has a source of type {source['type']!r}; expected 'file'")
                for supervision in cut["supervisions"]:
                    yield Utterance(
                        os.path.join(file.parent, source["source"]),
                        supervision["text"],
                        float(supervision["duration"]),
                        id=supervision["id"],
                        language=(supervision.get("language") or "en").lower(),
                        speaker=supervision.get("speaker"),
                        split=(supervision.get("custom") or {}).get("split"),
                        set=file.name.split(".")[0],
                        start=float(cut["start"]) + float(supervision["start"]),
                    )
            except (KeyError, ValueError, TypeError) as error:
                if isinstance(error, ManifestError):
                    raise
                raise ManifestError(f"{file}:{number} is not a lhotse cut: {error!r}") from error
