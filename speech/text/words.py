"""Text that arrives in pieces, such as from a language model, framed into whole words."""

from __future__ import annotations

import unicodedata
from dataclasses import dataclass
from typing import NamedTuple

MAX_WORD = 100  # characters; what is longer is cut there, so that no input makes a word that costs too much
OPENING = ("Ps", "Pi")  # Unicode's categories of brackets and quotes that belong to the word after them


@dataclass(frozen=True)
class Text:
    """A piece of text, and the time in seconds of the speech that it stands for (None: that of the text before it).

    whole: whether a word is known to end with it; otherwise the next white space tells.
    """

    text: str
    time_s: float | None = None
    whole: bool = False


@dataclass(frozen=True)
class Draft:
    """Text that may follow what was given so far, or may not: to be shown what would come of it, and forgotten."""

    text: str


class TimedWord(NamedTuple):
    """A word with the white space before it, so that the words of a text join to the text.

    time_s: of its last character, in seconds.
    """

    text: str
    time_s: float


@dataclass(frozen=True)
class WordChunk:
    """Consecutive words of one stream.

    words: possibly none.
    begin: position in the stream's text at which they begin, in characters.
    flush: whether the text was flushed behind them: what they say is to come out without waiting for more.
    last:  whether the text ends behind them.
    draft: text that may follow them, for a task that is `Previewing`; nothing of it has been taken.
    """

    words: tuple[TimedWord, ...]
    begin: int
    flush: bool
    last: bool
    draft: str | None = None


class WordFramer:
    """Cuts a text into words, whatever the pieces it comes in.

    A word ends where white space begins, and in Chinese and Japanese, which have none, at every ideograph and
    hiragana. It is known to be whole once the next one has begun.

    Attributes:
        pending: characters of the word under way.
        time_s: of the last character.
    """

    def __init__(self, pending: str = "", time_s: float = 0.0) -> None:
        self.pending, self.time_s = pending, time_s

    def push(self, text: str, time_s: float) -> list[TimedWord]:
        """Append text whose characters all have one time; returns the words that it completes."""
        words = []
        for character in text:
            if self.pending and _begins_word(self.pending, character):
                words.append(TimedWord(self.pending, self.time_s))
                self.pending = ""
            self.pending += character
            self.time_s = time_s
        return words

    def flush(self) -> list[TimedWord]:
        """End the word under way, if there is one; white space goes on waiting for the next one."""
        if not self.pending.strip():
            return []
        word, self.pending = TimedWord(self.pending, self.time_s), ""
        return [word]


def split_words(text: str) -> list[str]:
    """The words of a whole text; they join to it, but for white space at its end."""
    framer = WordFramer()
    return [word.text for word in (*framer.push(text, 0.0), *framer.flush())]


def _begins_word(pending: str, character: str) -> bool:
    before = pending[-1]
    if len(pending) >= MAX_WORD:
        return True
    if before.isspace():
        return False
    if character.isspace():
        return True
    if _stands_alone(character):
        return unicodedata.category(before) not in OPENING
    kind = unicodedata.category(character)
    return (kind[0] in "LN" or kind in OPENING) and any(map(_stands_alone, pending))


def _stands_alone(character: str) -> bool:
    """Whether a character of a script without spaces is a word of its own: ideographs and hiragana."""
    code = ord(character)
    return (
        0x3400 <= code <= 0x9FFF or 0x3041 <= code <= 0x3096 or 0xF900 <= code <= 0xFAFF or 0x20000 <= code <= 0x3FFFF
    )
