"""Files that ``loquent translate`` is given: texts line by line, captions in whole sentences."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, TextIO

from loquent.speech.commands.output import whole_file
from loquent.speech.commands.translation.models import text_of, translated

if TYPE_CHECKING:
    from loquent.speech.runtime.engine import Engine
    from loquent.speech.subtitles import Cue, Subtitles

CAPTION_ENDINGS = (".srt", ".vtt")
Done = Callable[[int], None]  # characters that have been translated


@dataclass(frozen=True)
class Source:
    """A file to translate, by the name that people see."""

    name: str
    path: Path

    @property
    def captions(self) -> str | None:
        """The format, if it has captions."""
        ending = self.path.suffix.lower()
        return ending[1:] if ending in CAPTION_ENDINGS else None


def written(path: Path | None) -> contextlib.AbstractContextManager[TextIO]:
    """Where a translation goes: to a file, or to standard output."""
    return contextlib.nullcontext(sys.stdout) if path is None else whole_file(path)


def write_lines(
    engine: Engine, lines: Sequence[str], file: TextIO, options: dict[str, Any], done: Done | None = None
) -> None:
    """Translate lines, each for itself, many in a batch; their indentation stays."""
    for line, events in zip(lines, translated(engine, lines, done, **options), strict=True):
        indent = line[: len(line) - len(line.lstrip())].rstrip("\r")
        file.write(f"{indent}{text_of(events).strip()}\n")
        file.flush()


def write_captions(
    engine: Engine, text: str, source: Source, out: Path | None, options: dict[str, Any], done: Done
) -> None:
    """Translate captions; their times stay. The name of the output may ask for the other format, or for the text alone.

    Raises:
        SubtitleError: the text is not of its format.
    """
    from loquent.speech.subtitles import read_subtitles, write_subtitles

    subtitles = read_subtitles(text, source.captions or "")
    cues = _translated(engine, subtitles, options, done)
    format = subtitles.format if out is None else out.suffix.lower()[1:]
    with written(out) as file:
        if format in ("srt", "vtt"):
            write_subtitles(subtitles.with_cues(cues), format, file)
        else:
            file.writelines(f"{voice.text}\n" for cue in cues for voice in cue.voices if voice.text)


def _translated(engine: Engine, subtitles: Subtitles, options: dict[str, Any], done: Done) -> list[Cue]:
    """Whole sentences are translated, and shared out over their captions."""
    from loquent.speech.whole_sentences import divided, groups, joined

    found = groups(piece for cue in subtitles.cues for piece in cue.pieces())
    sentences = [[piece.text for piece in group] for group in found]
    events = translated(engine, [joined(texts) for texts in sentences], done, **options)
    said = iter([text for texts, own in zip(sentences, events, strict=True) for text in divided(texts, own)])
    return [cue.saying([next(said) for _ in cue.voices]) for cue in subtitles.cues]


def names_of(files: Sequence[Source], target: str) -> list[str]:
    """Names of translations: talk.es.srt; a number tells apart what would have the same."""
    names: list[str] = []
    for source in files:
        name, number = f"{source.path.stem}.{target}{source.path.suffix}", 2
        while name in names:
            name, number = f"{source.path.stem}-{number}.{target}{source.path.suffix}", number + 1
        names.append(name)
    return names


@contextlib.contextmanager
def progress_bar(files: Sequence[Source], shown: bool) -> Iterator[Done]:
    """A bar on standard error, if that is a terminal."""
    if not shown or not sys.stderr.isatty():
        yield lambda characters: None
        return
    from tqdm import tqdm

    total = sum(one.path.stat().st_size for one in files)  # bytes; close enough to characters
    layout = "{desc} {percentage:3.0f}% |{bar:24}| [{elapsed}<{remaining}]"
    with tqdm(desc="translating", total=total or None, bar_format=layout, leave=False) as bar:
        yield bar.update
