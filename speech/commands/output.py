"""The files of transcripts: which there are, and how they are written."""

from __future__ import annotations

import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from loquent.speech.captions import FORMATS, CaptionOptions, write
from loquent.speech.commands.arguments import CommandError
from loquent.speech.commands.recordings import Recording, shown


@dataclass(frozen=True)
class Output:
    """How transcripts are written, and where.

    format: one of `captions.FORMATS`, or "all".
    folder: for one file a recording and format; None is standard output.
    """

    format: str
    folder: Path | None
    layout: CaptionOptions

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the formats."""
        return tuple(FORMATS) if self.format == "all" else (self.format,)

    def exists(self, recording: Recording) -> bool:
        """Whether all files of a recording are there. An incomplete transcript is in files of another name."""
        return all(self._path(recording, format, "").is_file() for format in self.formats)

    def save(self, recording: Recording, incomplete: bool = False) -> None:
        """Write the files of a recording, each whole or not at all; an incomplete one as NAME.part.FORMAT.

        Raises:
            CommandError: one cannot be written.
        """
        for format in self.formats:
            path = self._path(recording, format, ".part" if incomplete else "")
            make_folder(path.parent)
            try:
                self._save(path, format, recording)
            except OSError as error:
                raise CommandError(f"cannot write {shown(path)}: {error.strerror or error}") from error

    def write(self, file: Any, format: str, recording: Recording) -> None:
        """Write a recording's transcript to an open file."""
        write(format, recording.segments, file, self.layout, recording.language)

    def _save(self, path: Path, format: str, recording: Recording) -> None:
        scratch = path.with_name(f".loquent-{os.getpid()}")
        try:
            with open(scratch, "w", encoding="utf-8", newline="\n") as file:
                self.write(file, format, recording)
            os.replace(scratch, path)
        except BaseException:
            scratch.unlink(missing_ok=True)
            raise

    def _path(self, recording: Recording, format: str, mark: str) -> Path:
        assert self.folder is not None
        return self.folder / recording.stem.parent / f"{recording.stem.name}{mark}.{format}"


def make_folder(folder: Path) -> None:
    """Make a folder with those above it.

    Raises:
        CommandError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write to {shown(folder)}: {error.strerror}") from error
