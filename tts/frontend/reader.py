"""Text to spoken words, word by word as it comes."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import asdict, dataclass, field
from typing import Any

from loquent.speech.text.words import MAX_WORD, WordChunk
from loquent.tts.frontend.normalization.numerals import numeral
from loquent.tts.frontend.normalization.pieces import Piece, Unread, cut
from loquent.tts.frontend.normalization.view import Reading, Undecided, View, said
from loquent.tts.frontend.spoken import SkippedText, SpokenWord

RULES = (numeral,)
LONGEST_WORD = 30  # letters; a longer word is cut
LONGEST_UTTERANCE = 60  # words; a longer one is ended there …
LONG_UTTERANCE = 45  # … or, from here on, at the first punctuation
LINE_PAUSE_S, PARAGRAPH_PAUSE_S = 0.2, 0.5
SENTENCE_END = re.compile(r"[.!?…]")
SPEAKABLE = re.compile(r"[A-Za-z]")


@dataclass(frozen=True)
class ReaderOptions:
    """How a text is read.

    ssml:    whether its tags are obeyed; otherwise they are text.
    lexicon: phonemes of words, which go before those of the voice.
    """

    ssml: bool = False
    lexicon: Mapping[str, str] = field(default_factory=dict)


class Reader:
    """Turns words as they are written into words as they are spoken, each as soon as no further text can change it.

    What it gives depends on the words and on where the text was flushed, not on how they come in chunks. A break of the
    text behind a word that was given already, such as an empty line, is a word without text that closes the utterance.

    Args:
        options: of the stream.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self.options = options
        self._pieces: list[Piece] = []  # not spoken yet
        self._before: tuple[str, ...] = ()  # cores of the last pieces spoken
        self._lead = ""  # punctuation that stands by itself, for the next word
        self._spoken = 0  # words of the utterance under way
        self._end = 0  # of the last word
        self._joined = False  # whether the last word of the text may go on

    def read(self, chunk: WordChunk) -> list[SpokenWord | SkippedText]:
        """Take words in; returns those that are final, in order."""
        result: list[SpokenWord | SkippedText] = []
        position = chunk.begin
        for word in chunk.words:
            text = word.text.lstrip()
            space = word.text[: len(word.text) - len(text)]
            lines = space.count("\n") if self._end or self._pieces else 0
            begin = position + len(space)
            position += len(word.text)
            if not text:
                continue
            if lines and not (lines == 1 and text[0].islower()):
                pause_s = LINE_PAUSE_S if lines == 1 else PARAGRAPH_PAUSE_S
                self._pieces.append(Piece("", begin, begin, pause_s=pause_s))
            starts_line = bool(lines) or not (self._end or self._pieces)
            for part in cut(text, begin, len(word.text) >= MAX_WORD, starts_line):
                if isinstance(part, Unread):
                    result += self._resolve(complete=False)
                    result.append(SkippedText(part.text, part.begin, part.end, part.reason))
                else:
                    self._pieces.append(part)
            result += self._resolve(complete=False)
        if chunk.flush or chunk.last:
            result += self._resolve(complete=True)
            result += self._close(0.0)
        return result

    def _resolve(self, complete: bool) -> list[SpokenWord | SkippedText]:
        """Speak the pieces whose reading is certain."""
        result: list[SpokenWord | SkippedText] = []
        while self._pieces:
            piece = self._pieces[0]
            if not piece.text:
                result += self._close(piece.pause_s)
                used = 1
            elif not piece.core:
                result += self._punctuation(piece)
                used = 1
            else:
                try:
                    reading = self._reading(View(self._pieces, complete, self._before))
                except Undecided:
                    break
                used = len(reading.words)
                result += self._speak(reading)
            del self._pieces[:used]
        return result

    def _reading(self, view: View) -> Reading:
        for rule in RULES:
            reading = rule(view)
            if reading is not None:
                return reading
        return said(view.piece.core)

    def _speak(self, reading: Reading) -> list[SpokenWord]:
        """The words of the first pieces."""
        pieces = self._pieces[: len(reading.words)]
        closing = pieces[-1].closing if reading.closing is None else reading.closing
        result: list[SpokenWord] = []
        for piece, words in zip(pieces, reading.words, strict=True):
            last = piece is pieces[-1]
            for index, word in enumerate(words):
                opening = self._lead + piece.opening if index == 0 else ""
                behind = (closing if last else piece.closing) if index == len(words) - 1 else ""
                if SPEAKABLE.search(word):
                    joined = piece.joined and index == len(words) - 1
                    result += self._word(opening, word, behind, piece, joined)
                    self._lead = ""
            self._before = (*self._before, piece.core[:40])[-3:]
        if (
            (SENTENCE_END.search(closing) and result)
            or self._spoken >= LONGEST_UTTERANCE
            or (self._spoken >= LONG_UTTERANCE and closing and result)
        ):
            result[-1] = self._closed(result[-1])
        return result

    def _word(self, opening: str, word: str, closing: str, piece: Piece, joined: bool) -> list[SpokenWord]:
        parts = [word[at : at + LONGEST_WORD] for at in range(0, len(word), LONGEST_WORD)]
        result = []
        for index, part in enumerate(parts):
            first, last = index == 0, index == len(parts) - 1
            text = (opening if first else "") + part + (closing if last else "")
            result.append(SpokenWord(text, piece.begin, piece.end, joined=joined or not last))
        self._spoken += len(parts)
        self._end = piece.end
        return result

    def _closed(self, word: SpokenWord) -> SpokenWord:
        self._spoken, self._before, self._lead = 0, (), ""
        return SpokenWord(**(asdict(word) | {"closes": True}))

    def _close(self, pause_s: float) -> list[SpokenWord]:
        """End the utterance under way; a pause is kept if there was an utterance at all."""
        if not self._end or not (self._spoken or pause_s):
            return []
        return [self._closed(SpokenWord("", self._end, self._end, pause_s=pause_s))]

    def _punctuation(self, piece: Piece) -> list[SpokenWord]:
        """What stands by itself: the end of a sentence, or a mark that goes with the next word."""
        marks = piece.text
        if not self._spoken:
            return []
        if re.fullmatch(r"[.!?]+[\"'”’)\]]*", marks) and marks != "...":
            return self._close(0.0)
        if re.fullmatch(r"[-–—]+", marks):
            self._lead = "—"
        elif re.fullmatch(r"[,;:…—]|\.\.\.", marks):
            self._lead = marks
        return []

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; what the text says before them is not in them."""
        return {
            "pieces": [list(asdict(piece).values()) for piece in self._pieces],
            "before": list(self._before),
            "lead": self._lead,
            "spoken": self._spoken,
            "end": self._end,
        }

    def restore(self, values: dict[str, Any]) -> None:
        """Inverse of `to_dict`, on a reader with the same options."""
        self._pieces = [Piece(*row) for row in values["pieces"]]
        self._before, self._lead = tuple(values["before"]), values["lead"]
        self._spoken, self._end = values["spoken"], values["end"]
