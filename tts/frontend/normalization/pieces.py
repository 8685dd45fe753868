"""Text cut into pieces: words with their punctuation, without what is not for the ear."""

from __future__ import annotations

import re
import unicodedata
from collections.abc import Iterator
from dataclasses import dataclass
from functools import cached_property

OPENING = "\"'“‘([{«„*_`~¿¡…"
CLOSING = "\"'”’)]}»*_`~,.;:!?…—"
MARKUP = str.maketrans("", "", "*_`~")  # of Markdown
SAME = str.maketrans({"’": "'", "ʼ": "'", "‒": "-", "−": "-", "―": "—", "\u2010": "-", "\u2011": "-"})
IGNORED = re.compile("[\u00ad\u034f\u200b-\u200f\u202a-\u202e\u2060-\u2064\u2066-\u206f\ufe00-\ufe0f\ufeff]")
LETTERS_OF_ITS_OWN = {"ß": "ss", "æ": "ae", "œ": "oe", "ø": "o", "ł": "l", "đ": "d", "ð": "d", "þ": "th", "ı": "i"}
# Behind these, a word begins that no white space is before.
CUT = re.compile(
    r"(?<=[^\W\d_])(?:—+|--+|…|\.{3,})(?=\w)|(?<=[^\W_])(?:—+|--+|…|\.{3,})(?=[^\W\d_])|(?<=[^\W\d_])–(?=[^\W\d_])"
    r"|(?<=[^\W\d_])[,;](?=[^\W\d_])|(?<=[a-z]{2})[!?]+(?=[^\W\d_])|(?<=\w)(?=\(\w{2})|(?<=\w[)\]])(?=\w{2})"
)
ADDRESS = re.compile(r"://|www\.|@|/")


@dataclass(frozen=True)
class Piece:
    """A word as it is written, with the punctuation around it; or, without text, a break.

    begin, end: characters of the stream's text.
    joined:      whether the next piece follows without white space.
    starts_line: whether it is the first of its line.
    pause_s:     silence that a break asks for, in seconds.
    """

    text: str
    begin: int
    end: int
    joined: bool = False
    starts_line: bool = False
    pause_s: float = 0.0

    @cached_property
    def opening(self) -> str:
        """Quotes and brackets in front."""
        return self.text[: len(self.text) - len(self.text.lstrip(OPENING))].translate(MARKUP)

    @cached_property
    def core(self) -> str:
        """What is left without them."""
        return self.text.lstrip(OPENING).rstrip(CLOSING)

    @cached_property
    def closing(self) -> str:
        """Punctuation behind."""
        rest = self.text.lstrip(OPENING)
        return rest[len(rest.rstrip(CLOSING)) :].translate(MARKUP)


@dataclass(frozen=True)
class Unread:
    """Characters that are not read, and why."""

    text: str
    begin: int
    end: int
    reason: str


def cut(word: str, begin: int, joined: bool, starts_line: bool) -> list[Piece | Unread]:
    """The pieces of a word.

    Args:
        word: text without white space.
        begin: its place in the stream's text.
        joined: whether the next word follows without white space.
    """
    result: list[Piece | Unread] = []
    for reason, run, at in _runs(word):
        end = at + len(run)
        if reason:
            result.append(Unread(run, begin + at, begin + end, reason))
            continue
        for text, first, last in _cut_run(run, at):
            more = joined if last == len(word) else True
            result.append(Piece(text, begin + first, begin + last, more, starts_line and first == 0))
    return result


def plain(text: str) -> str:
    """Latin letters without accents, and one form of quotes and dashes."""
    text = IGNORED.sub("", text).translate(SAME)
    if text.isascii():
        return text
    return "".join(map(_base, text))


def _cut_run(run: str, at: int) -> Iterator[tuple[str, int, int]]:
    """Texts and their places."""
    start = 0
    if not ADDRESS.search(run):
        for found in CUT.finditer(run):
            yield plain(run[start : found.end()]), at + start, at + found.end()
            start = found.end()
    text = plain(run[start:])
    if text:
        yield text, at + start, at + len(run)


def _base(character: str) -> str:
    if "\uff01" <= character <= "\uff5e":  # full-width forms of ASCII
        return unicodedata.normalize("NFKC", character)
    if not character.isalpha():
        return "" if unicodedata.category(character) == "Mn" else character
    small = character.lower()
    if small in LETTERS_OF_ITS_OWN:
        base = LETTERS_OF_ITS_OWN[small]
        return base if character == small else base.capitalize()
    bases = [c for c in unicodedata.normalize("NFKD", character) if unicodedata.category(c) != "Mn"]
    return "".join(bases) if all(c.isascii() for c in bases) else character


def _runs(word: str) -> Iterator[tuple[str, str, int]]:
    """Runs of characters that are read, or are not for one reason: the reason or "", the run, its place."""
    start, reason = 0, ""
    for index, character in enumerate(word):
        if unicodedata.category(character) in ("Mn", "Cf"):  # goes with the one before it
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
    if kind[0] == "L":
        return "" if _is_latin(character) else f"letters that this voice does not read ({_script(character)})"
    if kind == "Cc":
        return "control characters"
    if kind in ("Co", "Cn", "Cs"):
        return "characters without a meaning"
    if kind in ("So", "Sk") and ord(character) > 0x2190:
        return "pictures"
    return ""


def _is_latin(character: str) -> bool:
    return character.lower() in LETTERS_OF_ITS_OWN or _base(character).isascii()


def _script(character: str) -> str:
    return unicodedata.name(character, "unknown").split()[0].split("-")[0].capitalize()
