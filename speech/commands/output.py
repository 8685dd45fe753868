"""The files of transcripts: which there are, and how they are written."""

from __future__ import annotations

import contextlib
import os
import secrets
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, TextIO

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
            with whole_file(path) as file:
                self.write(file, format, recording)

    def write(self, file: Any, format: str, recording: Recording) -> None:
        """Write a recording's transcript to an open file."""
        write(format, recording.segments, file, self.layout, recording.language)

    def _path(self, recording: Recording, format: str, mark: str) -> Path:
        assert self.folder is not None
        return self.folder / recording.stem.parent / f"{recording.stem.name}{mark}.{format}"


@contextlib.contextmanager
def whole_file(path: Path) -> Iterator[TextIO]:
    """A text file that has its name once it is whole; where it is given up, whatever had the name is as before.

    Raises:
        CommandError: it cannot be written.
    """
    special = path.exists() and not path.is_file()  # a pipe, say, which cannot be replaced
    scratch = path if special else path.with_name(f".loquent-{secrets.token_hex(8)}")
    try:
        with open(scratch, "w", encoding="utf-8", newline="\n") as file:
            yield file
        if not special:
            os.replace(scratch, path)
    except OSError as error:
        raise CommandError(f"cannot write {shown(path)}: {error.strerror or error}") from error
    finally:
        if not special:
            scratch.unlink(missing_ok=True)


def make_folder(folder: Path) -> None:
    """Make a folder with those above it.

    Raises:
        CommandError: it cannot be made.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
    except OSError as error:
        raise CommandError(f"cannot write to {shown(folder)}: {error.strerror}") from error
