"""Live text on a terminal: what is committed in normal letters, what may still change dim and rewritten in place."""

from __future__ import annotations

import os
import re
import shutil
import unicodedata
from collections.abc import Iterator
from typing import Protocol, TextIO

from loquent.speech.runtime.events import Event, Final, Partial

DIM, PLAIN, CLEAR_BELOW = "\x1b[2m", "\x1b[0m", "\x1b[J"


class Display(Protocol):
    """Shows live text."""

    def show(self, event: Event) -> None:
        """Take up an event."""

    def close(self) -> None:
        """Nothing follows."""


def live_display(file: TextIO) -> Display:
    """The display that suits an open text file."""
    return TerminalDisplay(file) if is_terminal(file) else LineDisplay(file)


def is_terminal(file: TextIO) -> bool:
    """Whether a file is a terminal on which text can be drawn again."""
    return file.isatty() and os.environ.get("TERM", "dumb") != "dumb"


class LineDisplay:
    """For pipes and files: one line an utterance, written when it is final."""

    def __init__(self, file: TextIO) -> None:
        self.file = file

    def show(self, event: Event) -> None:
        """Take up an event."""
        if isinstance(event, Final):
            self.file.write(clean(event.text) + "\n")
            self.file.flush()

    def close(self) -> None:
        """Nothing is pending."""


class TerminalDisplay:
    """For terminals. Committed words are written once and scroll away; only the tail behind them is ever redrawn.

    Lines are broken here and not by the terminal, so that it is known how many the tail takes.
    """

    def __init__(self, file: TextIO) -> None:
        self.file = file
        self._committed = ""  # of the current utterance
        self._column = 0  # where it ends
        self._tail_rows = 0  # rows that the tail reaches below that
        self._tail = ""

    def show(self, event: Event) -> None:
        """Take up an event."""
        if isinstance(event, Partial):
            self._draw(clean(event.stable).lstrip(), clean(event.unstable))
        elif isinstance(event, Final):
            self._draw(clean(event.text), "")
            self._end_utterance()

    def close(self) -> None:
        """Drop the tail and leave the cursor on a new line."""
        if self._committed or self._tail:
            self._end_utterance()

    def _draw(self, committed: str, tail: str) -> None:
        if not committed:
            tail = tail.lstrip()
        if (committed, tail) == (self._committed, self._tail):
            return
        width, height = shutil.get_terminal_size()
        out = self._back_to_committed()
        for piece, column in wrapped(committed[len(self._committed) :], self._column, width):
            out, self._column = out + piece, column
        self._tail_rows, drawn = 0, ""
        for piece, _ in wrapped(tail, self._column, width):
            if piece.startswith("\n") and self._tail_rows == height - 2:
                break  # what does not fit on the screen could not be taken back
            self._tail_rows += piece.startswith("\n")
            drawn += piece
        self.file.write(out + (DIM + drawn + PLAIN if drawn else ""))
        self.file.flush()
        self._committed, self._tail = committed, tail

    def _back_to_committed(self) -> str:
        """Erase the tail, and a ^C that the terminal has put there."""
        up = f"\x1b[{self._tail_rows}A" if self._tail_rows else ""
        right = f"\x1b[{self._column}C" if self._column else ""
        return f"{up}\r{right}{CLEAR_BELOW}"

    def _end_utterance(self) -> None:
        self.file.write(self._back_to_committed() + "\n")
        self.file.flush()
        self._committed, self._tail, self._column, self._tail_rows = "", "", 0, 0


def clean(text: str) -> str:
    """Without control characters: what a server sends is not to steer the terminal."""
    return re.sub(r"[\x00-\x1f\x7f-\x9f]", " ", text)


def wrapped(text: str, column: int, width: int) -> Iterator[tuple[str, int]]:
    """Pieces of a text that goes on at ``column``, a line break in front where one is due, and the column after each.

    The last column stays free: terminals differ in what they do once it is full.
    """
    for word in _words(text):
        fits = _cells(word.strip()) < width
        if column and (column + _cells(word) >= width) and fits:
            word, column = "\n" + word.lstrip(), 0
        elif not column:
            word = word.lstrip()
        for part in [word] if fits else word:
            if column and column + _cells(part) >= width:
                part, column = "\n" + part, 0
            column += _cells(part)
            yield part, column


def _words(text: str) -> Iterator[str]:
    """Pieces that a line may break between: words with the space before them, or letters of scripts without spaces."""
    word = ""
    for letter in text:
        if letter.isspace() or unicodedata.east_asian_width(letter) in "WF":
            if word.strip():
                yield word
                word = ""
            word += " " if letter.isspace() else letter
        else:
            word += letter
    if word:
        yield word


def _cells(text: str) -> int:
    """Columns that a text takes."""
    seen = [letter for letter in text if letter != "\n" and not unicodedata.combining(letter)]
    return sum(2 if unicodedata.east_asian_width(letter) in "WF" else 1 for letter in seen)
