"""Captions that somebody else wrote: SubRip and WebVTT files, read, and written again with other texts."""

from __future__ import annotations

import html
import re
from collections.abc import Sequence
from dataclasses import dataclass, field, replace
from typing import TextIO

from loquent.speech.text.shares import shared_out
from loquent.speech.whole_sentences import Piece

WIDTH = 42  # characters of a line, as is usual
_TIME = r"(?:(\d+):)?(\d{1,2}):(\d{1,2})[.,](\d{1,3})"
_TIMES = re.compile(rf"\s*{_TIME}\s*-->\s*{_TIME}(.*)")
_TAG = r"(?:</?(?:[biucv]|font|ruby|rt|lang)\b[^<>]*>|<[\d:.]+>|\{\\[^{}]*\})"
_WRAPPED = re.compile(rf"((?:{_TAG}|\s)*)(.*?)((?:{_TAG}|\s)*)", re.DOTALL)
_DASH = re.compile(r"[-–—]\s*(?=\S)")


class SubtitleError(ValueError):
    """A text is not of the format; the message says where."""


@dataclass(frozen=True)
class Voice:
    """What one speaker says in a caption.

    before, after: marks around it that are no text: a dash, tags.
    text:          in one line, without tags.
    """

    before: str
    text: str
    after: str = ""


@dataclass(frozen=True)
class Cue:
    """A caption.

    name:       its number or identifier, "" without one.
    start, end: in seconds.
    settings:   what stands behind the times.
    voices:     several where lines begin with dashes.
    """

    name: str
    start: float
    end: float
    settings: str
    voices: tuple[Voice, ...]

    def pieces(self) -> list[Piece]:
        """The texts of the voices, to be put together to whole sentences."""
        several = len(self.voices) > 1
        return [Piece(one.text, self.start, self.end, several) for one in self.voices]

    def saying(self, texts: Sequence[str]) -> Cue:
        """The same caption with other texts, one a voice."""
        changed = (replace(voice, text=text) for voice, text in zip(self.voices, texts, strict=True))
        return replace(self, voices=tuple(changed))


@dataclass(frozen=True)
class Subtitles:
    """A file of captions.

    format: "srt" or "vtt".
    blocks: captions, and as they stand the header, comments and styles of WebVTT.
    """

    format: str
    blocks: tuple[Cue | str, ...] = field(default_factory=tuple)

    @property
    def cues(self) -> list[Cue]:
        """The captions."""
        return [block for block in self.blocks if isinstance(block, Cue)]

    def with_cues(self, cues: Sequence[Cue]) -> Subtitles:
        """The same file with other captions, as many."""
        following = iter(cues)
        return replace(self, blocks=tuple(next(following) if isinstance(one, Cue) else one for one in self.blocks))


def read_subtitles(text: str, format: str) -> Subtitles:
    """Read a file's text.

    Raises:
        SubtitleError: it is not of the format.
    """
    lines = text.replace("\r\n", "\n").replace("\r", "\n").split("\n")
    if not any(line.strip() for line in lines):
        return Subtitles(format)
    return Subtitles(format, tuple(_webvtt(lines) if format == "vtt" else _subrip(lines)))


def write_subtitles(subtitles: Subtitles, format: str, file: TextIO) -> None:
    """Write captions in either format; those that say nothing are left out."""
    same = format == subtitles.format
    if format == "vtt" and not same:
        file.write("WEBVTT\n\n")
    number = 0
    for block in subtitles.blocks:
        if isinstance(block, str):
            if format == "vtt":
                file.write(block + "\n\n")
            continue
        lines = [line for voice in block.voices for line in _lines(voice, format, same)]
        if not lines:
            continue
        number += 1
        name = block.name if format == "vtt" else str(number)
        settings = block.settings if same else ""
        mark = "." if format == "vtt" else ","
        times = f"{_clock(block.start, mark)} --> {_clock(block.end, mark)}{settings}"
        file.write("\n".join([*([name] if name else []), times, *lines]) + "\n\n")
    file.flush()


def _subrip(lines: Sequence[str]) -> list[Cue | str]:
    """Every line belongs to the caption above it: some files have empty lines within a text."""
    at = [number for number, line in enumerate(lines) if _TIMES.fullmatch(line)]
    begins = [number - 1 if number and lines[number - 1].strip().isdigit() else number for number in at]
    lost = next((n for n, line in enumerate(lines[: begins[0]] if at else lines) if line.strip()), None)
    if lost is not None:
        expected = "a number and times such as 00:00:01,000 --> 00:00:02,500"
        raise SubtitleError(f"line {lost + 1} is no SubRip: expected {expected}, got {lines[lost][:60]!r}")
    cues: list[Cue | str] = []
    for begin, times, end in zip(begins, at, [*begins[1:], len(lines)], strict=True):
        name = lines[begin].strip() if begin < times else ""
        cues.append(_cue(name, lines[times], lines[times + 1 : end], times + 1, escaped=False))
    return cues


def _webvtt(lines: Sequence[str]) -> list[Cue | str]:
    if not re.match(r"WEBVTT(\s|$)", lines[0]):
        raise SubtitleError(f"line 1 is no WebVTT: expected WEBVTT, got {lines[0][:60]!r}")
    blocks: list[Cue | str] = []
    begin = 0
    while begin < len(lines):
        if not lines[begin].strip():
            begin += 1
            continue
        end = next((at for at in range(begin, len(lines)) if not lines[at].strip()), len(lines))
        block = lines[begin:end]
        if "-->" in block[0]:
            blocks.append(_cue("", block[0], block[1:], begin + 1, escaped=True))
        elif blocks and len(block) > 1 and "-->" in block[1]:
            blocks.append(_cue(block[0].strip(), block[1], block[2:], begin + 2, escaped=True))
        else:
            blocks.append("\n".join(block))
        begin = end
    return blocks


def _cue(name: str, times: str, lines: Sequence[str], number: int, escaped: bool) -> Cue:
    found = _TIMES.fullmatch(times)
    if found is None:
        raise SubtitleError(f"line {number}: expected times such as 00:01.000 --> 00:02.500, got {times[:60]!r}")
    start, end = (
        int(h or 0) * 3600 + int(m) * 60 + int(s) + int(f.ljust(3, "0")) / 1000
        for h, m, s, f in (found.groups()[:4], found.groups()[4:8])
    )
    if end < start:
        raise SubtitleError(f"line {number}: the caption ends before it begins: {times.strip()[:60]!r}")
    return Cue(name, start, end, found[9].rstrip(), tuple(_voices([one.strip() for one in lines], escaped)))


def _voices(lines: Sequence[str], escaped: bool) -> list[Voice]:
    """One voice a line that begins with a dash, if several do; else all lines are one."""
    full = [line for line in lines if line]
    dashed = [bool(_DASH.match(re.sub(_TAG, "", line))) for line in full]
    if sum(dashed) < 2 or not dashed[0]:
        return [_voice(" ".join(full), escaped)] if full else []
    turns: list[str] = []
    for line, begins in zip(full, dashed, strict=True):
        turns = [*turns, line] if begins else [*turns[:-1], f"{turns[-1]} {line}"]
    return [_voice(turn, escaped) for turn in turns]


def _voice(text: str, escaped: bool) -> Voice:
    """Tags around the whole text are kept, and those within it dropped: nobody knows where they would belong."""
    found = _WRAPPED.fullmatch(text)
    assert found is not None
    before, inner, after = (part.strip() for part in found.groups())
    opened, closed = re.findall(r"<(\w+)", before), re.findall(r"</(\w+)", after)
    if opened[::-1] != closed:
        before, after = "".join(re.findall(r"\{[^{}]*\}|<v[^<>]*>", before)), ""
    inner = " ".join(re.sub(_TAG, "", inner).split())
    if dash := _DASH.match(inner):
        before, inner = before + dash[0], inner[dash.end() :]
    return Voice(before, html.unescape(inner) if escaped else inner, after)


def _lines(voice: Voice, format: str, same: bool) -> list[str]:
    """A voice's text in lines of about the same length, with the marks that the format knows."""
    text = " ".join(voice.text.split())
    if not text:
        return []
    lines = [line.strip() for line in shared_out(text, [1.0] * -(-len(text) // WIDTH))]
    if format == "vtt":
        lines = [line.replace("&", "&amp;").replace("<", "&lt;").replace(">", "&gt;") for line in lines]
    else:  # which has no escapes, and an arrow reads as times
        lines = [re.sub("--+>", "->", line) for line in lines]
    before, after = voice.before, voice.after
    if not same:
        before, after = (re.sub(rf"(?!</?[biu]>){_TAG}", "", marks) for marks in (before, after))
    lines = [line for line in lines if line]
    lines[0] = before + lines[0]
    lines[-1] += after
    return lines


def _clock(seconds: float, mark: str) -> str:
    ms = round(seconds * 1000)
    return f"{ms // 3600000:02d}:{ms // 60000 % 60:02d}:{ms // 1000 % 60:02d}{mark}{ms % 1000:03d}"
