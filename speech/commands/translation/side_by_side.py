"""Live text in two languages: what is said, and its translation below it."""

from __future__ import annotations

import shutil
from collections.abc import Sequence
from typing import TextIO

from loquent.speech.bilingual import Bilingual
from loquent.speech.commands.display import CLEAR_BELOW, DIM, PLAIN, Display, clean, is_terminal, wrapped
from loquent.speech.runtime.events import Event
from loquent.speech.transcript import Segment


def bilingual_display(file: TextIO) -> Display:
    """The display that suits an open text file."""
    return BilingualTerminal(file) if is_terminal(file) else BilingualLines(file)


INDENT = "  "  # of a translation on a terminal


class BilingualLines:
    """For pipes and files: two lines an utterance, written when both are final."""

    def __init__(self, file: TextIO) -> None:
        self.file, self._pairs = file, Bilingual()

    def show(self, event: Event) -> None:
        """Take up an event."""
        self._write(self._pairs.add(event))

    def close(self) -> None:
        """Write what waits for the rest of its translation."""
        self._write(self._pairs.finish())

    def _write(self, segments: Sequence[Segment]) -> None:
        for segment in segments:
            self.file.write("".join(f"{clean(text).strip()}\n" for text in _texts(segment) if text.strip()))
            self.file.flush()


class BilingualTerminal:
    """For terminals: utterances that are complete scroll away; those under way are drawn again with every event.

    What may still change is dim. Where they do not fit on the screen, their beginning is left out for the time being.
    """

    def __init__(self, file: TextIO) -> None:
        self.file, self._pairs = file, Bilingual()
        self._rows = 0  # of what is drawn and will be drawn again

    def show(self, event: Event) -> None:
        """Take up an event."""
        self._draw(self._pairs.add(event))

    def close(self) -> None:
        """Write what waits for the rest of its translation; leave the cursor on a new line."""
        self._draw(self._pairs.finish())

    def _draw(self, segments: Sequence[Segment]) -> None:
        width, height = shutil.get_terminal_size()
        complete = [row for segment in segments for row in _pair(*_texts(segment), width=width)]
        rows = [
            row
            for one in self._pairs.utterances
            for row in _pair(one.stable, one.translation, one.unstable, one.draft, width)
        ][-(height - 1) :]
        up = f"\x1b[{self._rows}A" if self._rows else ""
        self.file.write(f"{up}\r{CLEAR_BELOW}" + "".join(f"{row}\n" for row in complete + rows))
        self.file.flush()
        self._rows = len(rows)


def _texts(segment: Segment) -> tuple[str, str]:
    return segment.text, segment.translation or ""


def _pair(text: str, translation: str, unstable: str = "", draft: str = "", width: int = 80) -> list[str]:
    """The rows of an utterance and its translation."""
    below = _rows(translation, draft, width - len(INDENT))
    return _rows(text, unstable, width) + [INDENT + row for row in below]


def _rows(committed: str, tail: str, width: int) -> list[str]:
    """Text in rows, the tail dim."""
    committed = clean(committed).strip()
    tail = clean(tail) if committed else clean(tail).lstrip()
    drawn, column = "", 0
    for text, dim in ((committed, False), (tail, True)):
        for piece, after in wrapped(text, column, width):
            column = after
            line_break, word = ("\n", piece[1:]) if piece.startswith("\n") else ("", piece)
            drawn += line_break + (DIM + word + PLAIN if dim else word)
    return drawn.split("\n") if drawn else []
