"""Captions: write recognised segments as txt, srt, vtt, tsv or json, one segment at a time.

A translation goes below the text it is of; tsv has a column for it, and json a field.

Every writer puts a segment out as soon as it gets it, so a file can be watched while its recording is still going on.
"""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Iterator
from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Self, TextIO

from loquent.speech.text.shares import shared_out
from loquent.speech.transcript import Segment, WordTiming


@dataclass(frozen=True)
class CaptionOptions:
    """How srt and vtt lay out a segment; the other formats take no notice. No caption spans two segments.

    A segment whose words are timed is cut after sentences and before pauses of a second. Without any limit of these, a
    caption holds at most `LONGEST` characters.

    max_line_width: characters a line may hold; a longer word gets a line of its own. None: one line a caption.
    max_line_count: lines a caption may hold; more lines make more captions, timed by their words. None: no limit.
    highlight_words: repeat each caption once a word, with the word that is being said underlined.
    max_words_per_line: words a caption may hold; has no effect with `max_line_width`.
    translated: whether the segments have translations, which tsv has to know before the first.
    """

    max_line_width: int | None = None
    max_line_count: int | None = None
    highlight_words: bool = False
    max_words_per_line: int | None = None
    translated: bool = False

    def __post_init__(self) -> None:
        for name in ("max_line_width", "max_line_count", "max_words_per_line"):
            value = getattr(self, name)
            if value is not None and value < 1:
                raise ValueError(f"expected {name} of at least 1, got {value}")
        if self.max_line_count is not None and self.max_line_width is None:
            raise ValueError("max_line_count: counts lines of max_line_width, so pass that too")

    @property
    def needs_words(self) -> str | None:
        """An option that needs word times, if one is asked for."""
        names = ("highlight_words", "max_line_count", "max_words_per_line")
        return next((name for name in names if getattr(self, name)), None)


def write(
    format: str,
    segments: Iterable[Segment],
    file: TextIO,
    options: CaptionOptions | None = None,
    language: str | None = None,
) -> None:
    """Write `segments` to an open text file (UTF-8, newline="\\n") as they come; `format` is one of `FORMATS`.

    Only json tells the `language`. Raises ValueError for an unknown format, and for options that need words where
    there are none.
    """
    if format not in FORMATS:
        raise ValueError(f"unknown caption format {format!r}; expected one of {', '.join(FORMATS)}")
    with FORMATS[format](file, options, language) as writer:
        for segment in segments:
            writer.write(segment)


class CaptionWriter:
    """Writes one format to an open text file: `write` each segment, then `close` (or use it as a context manager).

    Closing ends the format (json's brackets) and leaves the file open. Only json keeps segments without text.
    """

    def __init__(self, file: TextIO, options: CaptionOptions | None = None, language: str | None = None) -> None:
        self.file = file
        self.options = options or CaptionOptions()
        self.language = language
        self._begin()

    def write(self, segment: Segment) -> None:
        raise NotImplementedError

    def close(self) -> None:
        self.file.flush()

    def _begin(self) -> None:
        """Write what precedes the first segment."""

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *exc_info: object) -> None:
        self.close()


class TextWriter(CaptionWriter):
    """One line a segment, and one for its translation."""

    def write(self, segment: Segment) -> None:
        for text in filter(None, map(_one_line, (segment.text, segment.translation or ""))):
            self.file.write(text + "\n")
        self.file.flush()


class TsvWriter(CaptionWriter):
    """`start`, `end` in whole milliseconds, `text` and `translation`, tab-separated under a header line."""

    def _begin(self) -> None:
        self._translated = "\ttranslation" if self.options.translated else ""
        self.file.write(f"start\tend\ttext{self._translated}\n")

    def write(self, segment: Segment) -> None:
        text, translation = (_one_line(one or "").replace("\t", " ") for one in (segment.text, segment.translation))
        if text:
            more = f"\t{translation}" if self._translated else ""
            self.file.write(f"{_ms(segment.start)}\t{_ms(segment.end)}\t{text}{more}\n")
            self.file.flush()


class JsonWriter(CaptionWriter):
    """One object `{"language", "segments": [{"id", "start", "end", "text", "words": [...]}], "text"}`, as Whisper's.

    Segments that were decoded by windows tell how: "seek", "tokens", "temperature", "avg_logprob", "compression_ratio",
    "no_speech_prob".
    """

    def _begin(self) -> None:
        self._texts: list[str] = []
        self.file.write(f'{{"language": {json.dumps(self.language)}, "segments": [')

    def write(self, segment: Segment) -> None:
        separator = ",\n" if self._texts else "\n"
        known = {name: value for name, value in asdict(segment).items() if value is not None}
        known["words"] = [_without_unknown_speaker(word) for word in known["words"]]
        self.file.write(separator + _json({"id": len(self._texts), **known}))
        self.file.flush()
        self._texts.append(segment.text)

    def close(self) -> None:
        self.file.write(f'\n], "text": {_json(" ".join(filter(None, map(_one_line, self._texts))))}}}\n')
        super().close()


def _without_unknown_speaker(word: dict[str, Any]) -> dict[str, Any]:
    return word if word["speaker"] is not None else {name: word[name] for name in word if name != "speaker"}


class _CueWriter(CaptionWriter):
    """What srt and vtt share: captions of timed lines."""

    decimal_mark: ClassVar[str]

    def write(self, segment: Segment) -> None:
        for cue in _cues(segment, self.options):
            self._write_cue(cue)
        self.file.flush()

    def _write_cue(self, cue: _Cue) -> None:
        start_ms = _ms(cue.start)
        # Both formats want an end that is later than the start.
        end_ms = max(_ms(cue.end), start_ms + 1)
        lines = [self._escape(line) for line in cue.lines]
        self.file.write(f"{self._time(start_ms)} --> {self._time(end_ms)}\n" + "\n".join(lines) + "\n\n")

    def _time(self, ms: int) -> str:
        return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}{self.decimal_mark}{ms % 1000:03d}"

    def _escape(self, line: str) -> str:
        raise NotImplementedError


class SrtWriter(_CueWriter):
    """SubRip: numbered captions, comma before the milliseconds."""

    decimal_mark = ","

    def _begin(self) -> None:
        self._number = 0

    def _write_cue(self, cue: _Cue) -> None:
        self._number += 1
        self.file.write(f"{self._number}\n")
        super()._write_cue(cue)

    def _escape(self, line: str) -> str:
        # SubRip has no escapes, and an arrow in the text reads as a time line.
        return _underlined(re.sub("--+>", "->", line))


class VttWriter(_CueWriter):
    """WebVTT (https://www.w3.org/TR/webvtt1/), always with hours."""

    decimal_mark = "."

    def _begin(self) -> None:
        self.file.write("WEBVTT\n\n")

    def _escape(self, line: str) -> str:
        return _underlined(line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;"))


FORMATS: dict[str, type[CaptionWriter]] = {
    "txt": TextWriter,
    "srt": SrtWriter,
    "vtt": VttWriter,
    "tsv": TsvWriter,
    "json": JsonWriter,
}


@dataclass(frozen=True)
class _Cue:
    start: float
    end: float
    lines: tuple[str, ...]


# Marks of the word to underline, put in before escaping and turned into tags after it; text has no control characters.
_UNDERLINE, _PLAIN = "\x01", "\x02"


def _underlined(line: str) -> str:
    return line.replace(_UNDERLINE, "<u>").replace(_PLAIN, "</u>")


def _cues(segment: Segment, options: CaptionOptions) -> Iterator[_Cue]:
    """Captions of one segment, in order of time."""
    if not (text := _one_line(segment.text)):
        return
    spoken = tuple(word for word in segment.words if _one_line(word.text))  # others would make captions without text
    if not spoken:
        if option := options.needs_words:
            raise ValueError(f"{option} needs word times, and the segment at {segment.start:.2f} s has none: {text!r}")
        lines = _lines(re.findall(r"\s*\S+", text), options.max_line_width)
        shown = tuple("".join(line).strip() for line in lines)
        yield _Cue(segment.start, segment.end, shown + _translated(segment.translation or "", options))
        return
    done = 0
    parts = list(_parts(text, spoken, options))
    translations = shared_out(
        segment.translation or "", [sum(len(piece) for row in part for piece in row) for part in parts]
    )
    for part, translation in zip(parts, translations, strict=True):
        words = spoken[done : done + sum(map(len, part))]
        start = segment.start if done == 0 else words[0].start
        done += len(words)
        end = segment.end if done == len(spoken) else words[-1].end
        below = _translated(translation, options)
        if options.highlight_words:
            yield from _highlighted(start, end, part, words, below)
        else:
            yield _Cue(start, end, tuple("".join(line).strip() for line in part) + below)


def _parts(text: str, words: tuple[WordTiming, ...], options: CaptionOptions) -> Iterator[list[list[str]]]:
    """The lines of each caption of a segment whose words are timed, as pieces of words."""
    pieces = _pieces(text, words)
    done = 0
    for count in _cuts(pieces, words, options):
        lines = _lines(pieces[done : done + count], options.max_line_width)
        done += count
        per_cue = options.max_line_count or len(lines)
        yield from (lines[first : first + per_cue] for first in range(0, len(lines), per_cue))


def _translated(text: str, options: CaptionOptions) -> tuple[str, ...]:
    """The lines of a caption's translation."""
    lines = _lines(re.findall(r"\s*\S+", _one_line(text)), options.max_line_width)
    return tuple(filter(None, ("".join(line).strip() for line in lines)))


LONGEST = 84  # characters of a caption without limits of its own: two lines of 42, as is usual
PAUSE_S = 1.0
_SENTENCE_END = re.compile(r"[.!?…。！？]+[\"'”’»)\]]*$")
_CLAUSE_ENDS = (",", ";", ":", "，", "、")
_TITLES = frozenset(("mr.", "mrs.", "ms.", "dr.", "st.", "prof."))


def _cuts(pieces: list[str], words: tuple[WordTiming, ...], options: CaptionOptions) -> Iterator[int]:
    """Number of words in each caption of a segment: it ends with a sentence, before a pause, or where it is full."""
    begin = 0
    for end in range(1, len(pieces) + 1):
        if end < len(pieces) and not _ends(pieces, words, end):
            continue
        yield from _fitted(pieces[begin:end], options)
        begin = end


def _ends(pieces: list[str], words: tuple[WordTiming, ...], end: int) -> bool:
    """Whether a sentence ends, or a pause begins, before the word ``end``."""
    if words[end].start - words[end - 1].end >= PAUSE_S:
        return True
    last, following = pieces[end - 1].strip(), pieces[end].strip()
    return bool(_SENTENCE_END.search(last)) and last.lower() not in _TITLES and not following[:1].islower()


def _fitted(pieces: list[str], options: CaptionOptions) -> Iterator[int]:
    """Number of words in each caption of a stretch without an end."""
    if options.max_line_width is not None:
        yield len(pieces)
    elif options.max_words_per_line is not None:
        most = options.max_words_per_line
        yield from (len(pieces[at : at + most]) for at in range(0, len(pieces), most))
    else:
        while pieces:
            first = len(_lines(pieces, LONGEST)[0])
            if first < len(pieces):  # better after a comma, if that is not long before
                clauses = [
                    at
                    for at in range(first // 2 + 1, first)
                    if pieces[at - 1].strip().endswith((",", ";", ":", "，", "、"))
                ]
                first = clauses[-1] if clauses else first
            yield first
            pieces = pieces[first:]


def _highlighted(
    start: float, end: float, lines: list[list[str]], words: tuple[WordTiming, ...], below: tuple[str, ...]
) -> Iterator[_Cue]:
    """The same lines once a word with that word underlined, and plain in the pauses; ``below`` stays as it is."""
    plain = tuple("".join(line).strip() for line in lines)
    now, index = start, 0
    for row, line in enumerate(lines):
        for column, piece in enumerate(line):
            word = words[index]
            index += 1
            word_start, word_end = max(word.start, now), max(word.end, now)
            if _ms(word_start) > _ms(now):
                yield _Cue(now, word_start, plain + below)
            bare = piece.strip()
            marked = piece.replace(bare, f"{_UNDERLINE}{bare}{_PLAIN}", 1) if bare else piece
            changed = "".join([*line[:column], marked, *line[column + 1 :]]).strip()
            yield _Cue(word_start, word_end, (*plain[:row], changed, *plain[row + 1 :], *below))
            now = word_end
    if _ms(end) > _ms(now):
        yield _Cue(now, end, plain + below)


def _pieces(text: str, words: tuple[WordTiming, ...]) -> list[str]:
    """The text cut into one piece a word, each with the space and punctuation before it.

    Words that cannot be found in the text are taken as they stand: they are what is timed.
    """
    pieces, at = [], 0
    for word in words:
        bare = _one_line(word.text)
        found = text.find(bare, at)
        if found < 0:
            return [_LINE_BREAKS.sub(" ", word.text) for word in words]
        pieces.append(text[at : found + len(bare)])
        at = found + len(bare)
    pieces[-1] += text[at:]
    return pieces


def _lines(pieces: list[str], width: int | None) -> list[list[str]]:
    """Pieces packed into lines of at most `width` characters, not counting a space at either end."""
    lines: list[list[str]] = [[]]
    for piece in pieces:
        if width is not None and lines[-1] and len("".join([*lines[-1], piece]).strip()) > width:
            lines.append([])
        lines[-1].append(piece)
    return lines


_LINE_BREAKS = re.compile(r"\s*[\x00-\x08\x0a-\x1f\x7f\x85\u2028\u2029]+\s*")


def _one_line(text: str) -> str:
    """Text without line breaks and control characters, either of which would end a caption early, and trimmed."""
    return _LINE_BREAKS.sub(" ", text).strip()


def _ms(seconds: float) -> int:
    return round(seconds * 1000)


def _json(value: Any) -> str:
    return json.dumps(value, ensure_ascii=False, allow_nan=False)
