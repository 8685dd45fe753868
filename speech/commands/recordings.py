"""The recordings that a command line names."""

from __future__ import annotations

import glob
import os
import shutil
import sys
from collections import Counter
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from pathlib import Path

from loquent.speech.commands.arguments import CommandError, UsageError
from loquent.speech.transcript import Segment

AUDIO_ENDINGS = frozenset(
    ".3gp .aac .ac3 .aif .aifc .aiff .amr .ape .au .avi .caf .flac .flv .m2ts .m4a .m4b .m4v .mka .mkv .mov .mp2 .mp3 "
    ".mp4 .mpeg .mpg .mts .oga .ogg .ogv .opus .rf64 .ts .w64 .wav .webm .wma .wmv .wv".split()
)
STDIN = "-"


@dataclass
class Recording:
    """One recording to transcribe, and what became of it.

    name:     as shown to people.
    path:     of the file; that of standard input is a copy.
    stem:     where its transcripts go below the output folder, without the ending.
    segments: its text so far.
    """

    name: str
    path: Path
    stem: Path
    segments: list[Segment] = field(default_factory=list)
    language: str | None = None


def find_recordings(names: Sequence[str], scratch: Path) -> tuple[list[Recording], dict[str, str]]:
    """The recordings that names of files, folders (with all below), patterns and ``-`` stand for, each once.

    Args:
        scratch: a folder for a copy of what comes from standard input.

    Returns:
        The recordings, and a reason for every name that stands for none.
    """
    found: dict[Path, Recording] = {}
    failures: dict[str, str] = {}
    for name in names:
        if name == STDIN:
            if sys.stdin.isatty():
                raise UsageError("'-' reads audio from standard input, which is a terminal; pipe a file into it")
            copy = scratch / "stdin"
            if copy not in found:
                with open(copy, "wb") as file:
                    shutil.copyfileobj(sys.stdin.buffer, file)
                found[copy] = Recording("stdin", copy, Path("stdin"))
            continue
        try:
            for path, stem in _files(name):
                found.setdefault(path.resolve(), Recording(shown(path), path, stem))
        except (CommandError, OSError, ValueError) as error:  # such as a name that is too long for a file
            failures[shown(name)] = getattr(error, "strerror", None) or str(error)
    recordings = list(found.values())
    _separate(recordings)
    return recordings, failures


def shown(path: str | os.PathLike[str]) -> str:
    """A path as text that can be shown: bytes that are not UTF-8, and control characters, are escaped."""
    text = os.fspath(path).encode("utf-8", "surrogateescape").decode("utf-8", "backslashreplace")
    return "".join(letter if letter.isprintable() else repr(letter)[1:-1] for letter in text)


def _files(name: str) -> Iterator[tuple[Path, Path]]:
    """Files that a name stands for, with the stems of their transcripts."""
    path = Path(name).expanduser()
    if path.is_dir():
        below = sorted(_audio_below(path))
        if not below:
            raise CommandError(f"no audio files in the folder {name!r}")
        for file in below:
            yield file, file.relative_to(path).with_suffix("")
    elif path.exists() or not glob.has_magic(name):
        if not path.exists():
            raise CommandError("no such file or folder")
        yield path, Path(path.stem)
    else:
        matches = sorted(glob.glob(os.path.expanduser(name), recursive=True))
        if not matches:
            raise CommandError("no file matches this pattern")
        for match in map(Path, matches):
            if not match.is_dir():
                yield match, Path(match.stem)
            elif "**" not in name:  # which has matched what is in the folder already
                for file in sorted(_audio_below(match)):
                    yield file, match.name / file.relative_to(match).with_suffix("")


def _audio_below(folder: Path) -> Iterator[Path]:
    for parent, folders, files in os.walk(folder):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in files:
            if not name.startswith(".") and os.path.splitext(name)[1].lower() in AUDIO_ENDINGS:
                yield Path(parent, name)


def _separate(recordings: list[Recording]) -> None:
    """Give recordings that would write to the same file names of their own: a.wav and a.mp3, then a number."""
    shared = {stem for stem, count in Counter(one.stem for one in recordings).items() if count > 1}
    taken = {one.stem for one in recordings} - shared
    for one in recordings:
        if one.stem not in shared:
            continue
        candidate = base = one.stem.with_name(one.path.name)
        number = 2
        while candidate in taken:
            candidate = base.with_name(f"{base.name}-{number}")
            number += 1
        taken.add(candidate)
        one.stem = candidate
