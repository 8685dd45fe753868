"""Text cut into pieces: words with their punctuation, without what is not for the ear."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property

from loquent.tts.frontend.normalization.letters import without_accents

OPENING = "\"'“‘([{«„*_`¿¡…"
CLOSING = "\"'”’)]}»*_`,.;:!?…—"
SILENT = str.maketrans("", "", "*_`[]{}")  # of Markdown
SAME = str.maketrans(
    {"’": "'", "ʼ": "'", "′": "'", "″": '"', "‒": "-", "−": "-", "\u2010": "-", "\u2011": "-", "―": "—"}
)
IGNORED = re.compile("[\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]")
LINK = re.compile(r"\]\([^()\s]*\)?")  # the address of a Markdown link
TAG = re.compile(
    r"</?(?:a|b|br|code|div|em|h[1-6]|hr|i|li|ol|p|pre|s|small|span|strong|sub|sup|u|ul)\s*/?>", re.IGNORECASE
)
# Behind these, a word begins though there is no white space.
CUT = re.compile(
    r"(?<=[^\W_])(?:—+|--+|…|\.{3,})[\"”’')]*(?=[\"“‘'(]?[^\W_])|(?<=[^\W\d_])–(?=[^\W\d_])"
    r"|(?<=[^\W\d_]{2})[,;](?=[^\W\d_]{2})|(?<=[a-z]{2})(?:[!?]+|\.(?=[A-Z][a-z]))[\"”’')]*(?=[^\W\d_])"
    r"|(?<=\w)(?=\(\w{2})|(?<=\w[)\]])(?=\w{2})|(?<=[a-z]{2}):(?=[A-Za-z]{2})"
)
SYMBOLS_READ = frozenset("°©®™§¶´¨¸¯№℃℉•▪■◦●‣→")  # Unicode calls them signs like those of pictures
ADDRESS = re.compile(r"://|^\W*www\.|@|\w/\w")


@dataclass(frozen=True)
class Piece:
    """A word as it is written, with the punctuation around it.

    text:        empty for a break.
    begin, end:  characters of the stream's text.
    joined:      whether the next piece follows without white space.
    starts_line: whether it is the first of its line.
    unread:      why it is not spoken; empty if it is.
    accented:    the text with the accents of its letters, if it has any.
    pause_s:     silence that a break asks for, in seconds.
    rate:        factor of tempo.
    phonemes, words: how it is spoken, if that is given; empty if not.
    """

    text: str
    begin: int
    end: int
    joined: bool = False
    starts_line: bool = False
    unread: str = ""
    accented: str = ""
    pause_s: float = 0.0
    rate: float = 1.0
    phonemes: str = ""
    words: tuple[str, ...] = ()

    @cached_property
    def opening(self) -> str:
        """Quotes and brackets in front; what is before a digit is an apostrophe."""
        marks = self.text[: len(self.text) - len(self.text.lstrip(OPENING))].translate(SILENT)
        return marks.removesuffix("'") if self.core[:1].isdigit() else marks

    @cached_property
    def core(self) -> str:
        """What is left without them and without the punctuation behind."""
        return self.text.lstrip(OPENING).rstrip(CLOSING)

    @cached_property
    def written(self) -> str:
        """The core with its accents."""
        return self.accented.lstrip(OPENING).rstrip(CLOSING) if self.accented else self.core

    @cached_property
    def closing(self) -> str:
        """Punctuation behind."""
        rest = self.text.lstrip(OPENING)
        return rest[len(rest.rstrip(CLOSING)) :].translate(SILENT)


def cut(word: str, places: Sequence[tuple[int, int]], joined: bool, starts_line: bool) -> list[Piece]:
    """The pieces of a word.

    Args:
        word: text without white space.
        places: begin and end of each of its characters in the stream's text.
        joined: whether the next word follows without white space.
        starts_line: whether the word is the first of its line.
    """
    result: list[Piece] = []
    for reason, run, at in _runs(word):
        cuts = [(run, at, at + len(run))] if reason else _cut_run(run, at)
        for text, first, last in cuts:
            more = joined if last == len(word) else True
            begin, end = places[first][0], places[last - 1][1]
            bare = text if reason else without_accents(text)
            accented = text if bare != text and len(bare) == len(text) else ""
            result.append(Piece(bare, begin, end, more, starts_line and not result, reason, accented=accented))
    return result


def _cut_run(run: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Texts and their places."""
    start = 0
    if not ADDRESS.search(run):
        for found in CUT.finditer(run):
            yield _clean(run[start : found.end()]), at + start, at + found.end()
            start = found.end()
    text = _clean(run[start:])
    if text:
        yield text, at + start, at + len(run)


def _clean(text: str) -> str:
    """Without markup: of "[this](https://…)" the "[this]", of "<b>this</b>" and "~~this~~" the "this"."""
    if "](" in text:
        text = LINK.sub("]", text)
    if "~~" in text:
        text = text.replace("~~", "")
    if "<" in text:
        text = TAG.sub("", text)
    return unicodedata.normalize("NFC", IGNORED.sub("", text).translate(SAME))


def _runs(word: str) -> Iterator[tuple[str, str, int]]:
    """Runs of characters that are read, or are not for one reason: the reason or "", the run, its place."""
    start, reason = 0, ""
    for index, character in enumerate(word):
        if unicodedata.category(character) in ("Mn", "Me", "Cf"):  # goes with the one before it
            continue
        own = _reason(character)
        if own != reason:
            if index > start:
                yield reason, word[start:index], start
            start, reason = index, own
    yield reason, word[start:], start


def _reason(character: str) -> str:
    """Why a character is not read; "" if it is."""
    if character.isascii():
        return "" if character.isprintable() else "control characters"
    kind = unicodedata.category(character)
    if kind[0] == "L" or kind in ("Nd", "Nl", "Mc"):
        return "" if _is_known_letter(character) else f"not in the Latin script: {_script(character)}"
    if kind in ("Cc", "Co", "Cn", "Cs"):
        return "control characters"
    if kind in ("So", "Sk") and character not in SYMBOLS_READ:
        return "pictures and signs"
    return ""


def _is_known_letter(character: str) -> bool:
    return without_accents(character).isascii() or character in "µªºαβγδεζηθικλμνξπρστυφχψωΔΣΩΠ"


def _script(character: str) -> str:
    name = unicodedata.name(character, "unknown").split()[0].split("-")[0]
    return {"CJK": "Chinese", "HANGUL": "Korean", "HIRAGANA": "Japanese", "KATAKANA": "Japanese"}.get(
        name, name.capitalize()
    )
