"""Text to spoken words, word by word as it comes."""

from __future__ import annotations

import re
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.snapshot import MOST
from loquent.speech.text.words import MAX_WORD, WordChunk
from loquent.tts.frontend.elements import FASTEST, LONGEST_BREAK_S, SLOWEST
from loquent.tts.frontend.markup import Markup, MarkupState
from loquent.tts.frontend.normalization.codes import SIGNS
from loquent.tts.frontend.normalization.numerals import is_number
from loquent.tts.frontend.normalization.pieces import Piece, cut
from loquent.tts.frontend.normalization.rules import reading_of
from loquent.tts.frontend.normalization.view import Letter, Reading, Undecided, View, said
from loquent.tts.frontend.pronunciation.suffixes import with_s
from loquent.tts.frontend.spoken import SkippedText, SpokenWord

LONGEST_WORD = 30  # letters; a longer word is cut
LONGEST_UTTERANCE = 60  # words; a longer one is ended there …
LONG_UTTERANCE = 45  # … or, from here on, at the first punctuation
LONGEST_SKIPPED = 100  # characters that are told at once
LINE_PAUSE_S, PARAGRAPH_PAUSE_S = 0.2, 0.5
MOST_PIECES, LONGEST_SAVED = 500, 400  # pieces that wait, and characters of one
REMEMBERED, LONGEST_REMEMBERED = 3, 40  # pieces that rules look back at, and characters of them
SENTENCE_END = re.compile(r"[.!?…]")
DOUBTFUL_END = re.compile(r"\.\.|…|[!?][\"'”’)\]]")  # a small letter behind it goes on with the sentence
ENDS_ALONE = re.compile(r"[.!?]+[\"'”’)\]]*")
RULE = re.compile(r"([^\w\s])\1{2,}")  # a line of Markdown
QUOTES = "\"'”’)]"
DASH = re.compile(r"-|–|—|--+")
PAUSE = re.compile(r"[,;:…—|]|\.{2,}")
LINE_MARK = re.compile(r"[-–—*+•▪■◦●‣]|#+|>+|```\w*")  # bullets, headings, quotes, fences of code


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

    What it gives depends on the words and on where the text was flushed, not on how they come in chunks. Where the text
    breaks behind a word that was given already, such as at an empty line, comes a word without text that closes the
    utterance.

    Args:
        options: of the stream.
    """

    def __init__(self, options: ReaderOptions) -> None:
        self.options = options
        self._pieces: list[Piece] = []  # not spoken yet
        self._before: tuple[str, ...] = ()  # the last pieces of the utterance
        self._lead = ""  # punctuation that stands by itself, for the next word
        self._spoken = 0  # words of the utterance
        self._end = 0  # of the last word
        self._paused_s = 0.0  # since then
        self._started = self._begun = False  # whether a word was taken in, and spoken
        self._skipped: SkippedText | None = None  # more of it may follow
        self._markup = Markup() if options.ssml else None

    def read(self, chunk: WordChunk) -> list[SpokenWord | SkippedText]:
        """Take words in; returns those that are final, in order."""
        result: list[SpokenWord | SkippedText] = []
        position = chunk.begin
        for word in chunk.words:
            self._take(word.text, position)
            position += len(word.text)
            result += self._resolve(complete=False)
        if chunk.flush or chunk.last:
            self._pieces += self._markup.finish() if self._markup else []
            result += self._resolve(complete=True)
            result += self._close(0.0)
            result += self._tell_skipped()
        return result

    def _take(self, word: str, position: int) -> None:
        """Cut a word with the white space before it into pieces."""
        if self._markup:
            self._pieces += self._markup.take(word, position, len(word) >= MAX_WORD)
            return
        text = word.lstrip()
        begin = position + len(word) - len(text)
        lines = word[: begin - position].count("\n")
        starts_line = lines > 0 or not self._started
        self._started = True
        if lines > 1 or (lines and not text[:1].islower()):
            pause_s = LINE_PAUSE_S if lines == 1 else PARAGRAPH_PAUSE_S
            self._pieces.append(Piece("", begin, begin, pause_s=pause_s))
        if text:
            places = [(at, at + 1) for at in range(begin, begin + len(text))]
            self._pieces += cut(text, places, len(word) >= MAX_WORD, starts_line)

    def _resolve(self, complete: bool) -> list[SpokenWord | SkippedText]:
        """Speak the pieces whose reading is certain."""
        result: list[SpokenWord | SkippedText] = []
        while self._pieces:
            try:
                used, words = self._next(View(self._pieces, complete, self._before))
            except Undecided:
                break
            if not self._pieces[0].unread:
                result += self._tell_skipped()
            result += words
            del self._pieces[:used]
        return result

    def _next(self, view: View) -> tuple[int, list[SpokenWord | SkippedText]]:
        """How many pieces come next, and what is said of them."""
        piece = view.piece
        if piece.unread:
            return 1, self._skip(piece)
        if not piece.text:
            return 1, list(self._close(piece.pause_s))
        known = piece.phonemes or self._known(piece)
        if known or piece.words:
            given = said(Letter(word) if len(word) == 1 else word for word in piece.words or (piece.core,))
            return 1, list(self._speak(view, given, self._ends(view, given), known))
        spoken = any(c.isalnum() or c in SIGNS for c in piece.core) and not RULE.fullmatch(piece.text)
        reading = reading_of(view) if spoken else self._mark(view)
        if reading is None or (piece.starts_line and LINE_MARK.fullmatch(piece.text)):
            return 1, list(self._close(0.0)) if self._closes_alone(piece) else []
        return len(reading.words), list(self._speak(view, reading, self._ends(view, reading)))

    def _known(self, piece: Piece) -> str:
        """Phonemes of a word that the user's lexicon has."""
        lexicon, core = self.options.lexicon, piece.core
        found = lexicon.get(core) or lexicon.get(core.lower()) or ""
        if not found and core.endswith("'s"):
            stem = lexicon.get(core[:-2]) or lexicon.get(core[:-2].lower())
            found = with_s(stem) if stem else ""
        return found

    def _mark(self, view: View) -> Reading | None:
        """Punctuation that stands by itself: a dash between numbers; others go with the next word."""
        text = view.piece.text
        if DASH.fullmatch(text):
            following = view.after() if is_number(view.preceding()) else None
            if following and is_number(following.core):
                first, last = (float(number.replace(",", "")) for number in (view.preceding(), following.core))
                return said(["to" if first < last or "–" in text else "minus"], closing="")
            self._lead = "—" if self._spoken else ""
        elif text == "*" and is_number(view.preceding()):
            following = view.after()
            return said(["times"]) if following and is_number(following.core) else None
        elif PAUSE.fullmatch(text) and self._spoken:
            self._lead = "," if text == "|" else text
        return None

    def _closes_alone(self, piece: Piece) -> bool:
        return bool(ENDS_ALONE.fullmatch(piece.text)) and not piece.text.startswith("..")

    def _ends(self, view: View, reading: Reading) -> bool:
        """Whether a sentence ends behind a reading.

        Raises:
            Undecided: the next piece tells.
        """
        used = len(reading.words)
        closing = view.pieces[used - 1].closing if reading.closing is None else reading.closing
        if not SENTENCE_END.search(closing):
            return False
        following = view.after(used) if DOUBTFUL_END.search(closing) else None
        return following is None or not following.core[:1].islower()

    def _speak(self, view: View, reading: Reading, ends: bool, phonemes: str = "") -> list[SpokenWord]:
        """The words of the first pieces."""
        pieces = view.pieces[: len(reading.words)]
        closing = pieces[-1].closing if reading.closing is None else reading.closing
        result: list[SpokenWord] = []
        for piece, words in zip(pieces, reading.words, strict=True):
            behind = closing if piece is pieces[-1] else piece.closing
            result += self._words(piece, words, behind, phonemes)
            self._before = (*self._before, (piece.core + piece.closing)[:LONGEST_REMEMBERED])[-REMEMBERED:]
        if not result:
            return []
        self._lead, self._begun, self._end, self._paused_s = "", True, pieces[-1].end, 0.0
        self._spoken += len(result)
        pauses = self._spoken >= LONG_UTTERANCE and closing.strip(QUOTES)
        if ends or pauses or self._spoken >= LONGEST_UTTERANCE:
            result[-1] = replace(result[-1], closes=True)
            self._reset()
        return result

    def _words(self, piece: Piece, words: Sequence[str], closing: str, phonemes: str) -> Iterator[SpokenWord]:
        """The words of one piece, long ones cut, with its punctuation around them."""
        before = (self._lead if piece is self._pieces[0] else "") + piece.opening
        for index, word in enumerate(words):
            text = piece.written if word == piece.core else word
            own = phonemes or ("ˈA" if isinstance(word, Letter) and word == "A" else "")
            step = len(text) if own else LONGEST_WORD
            for at in range(0, len(text), step):
                goes_on = at + step < len(text)
                last = index == len(words) - 1 and not goes_on
                yield SpokenWord(
                    before + text[at : at + step] + (closing if last else ""),
                    piece.begin,
                    piece.end,
                    phonemes=own or None,
                    rate=piece.rate,
                    joined=goes_on or (last and piece.joined),
                )
                before = ""

    def _close(self, pause_s: float) -> list[SpokenWord]:
        """End the utterance under way, if there is one, and pause; lines without words make the pause no longer."""
        if self._markup is None:
            pause_s, self._paused_s = max(0.0, pause_s - self._paused_s), max(pause_s, self._paused_s)
        if not self._spoken and not (pause_s and self._begun):
            return []
        self._reset()
        return [SpokenWord("", self._end, self._end, closes=True, pause_s=pause_s)]

    def _reset(self) -> None:
        self._spoken, self._before, self._lead = 0, (), ""

    def _skip(self, piece: Piece) -> list[SpokenWord | SkippedText]:
        """Tell neighbours that are not read for the same reason as one."""
        before = self._skipped
        if before and before.reason == piece.unread and piece.end - before.begin <= LONGEST_SKIPPED:
            gap = " " * (piece.begin - before.end)
            self._skipped = replace(before, text=before.text + gap + piece.text, end=piece.end)
            return []
        told = self._tell_skipped()
        self._skipped = SkippedText(piece.text, piece.begin, piece.end, piece.unread)
        return told

    def _tell_skipped(self) -> list[SpokenWord | SkippedText]:
        told: list[SpokenWord | SkippedText] = [self._skipped] if self._skipped else []
        self._skipped = None
        return told

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values; what the text says before them is not in them."""
        return asdict(
            ReaderState(
                tuple(self._pieces),
                self._before,
                self._lead,
                self._spoken,
                self._end,
                self._paused_s,
                self._started,
                self._begun,
                self._skipped,
                self._markup.state if self._markup else None,
            )
        )

    def restore(self, values: dict[str, Any]) -> None:
        """Inverse of `to_dict`, on a reader with the same options. The values may come from anywhere.

        Raises:
            ValueError: they are not those of such a reader.
        """
        state = parse_options(ReaderState, values)
        state.check()
        if (state.markup is None) != (self._markup is None):
            raise ValueError("the saved reader has another option 'ssml'")
        self._pieces, self._before, self._lead = list(state.pieces), state.before, state.lead
        self._spoken, self._end, self._skipped = state.spoken, state.end, state.skipped
        self._paused_s, self._started, self._begun = state.paused_s, state.started, state.begun
        if self._markup and state.markup:
            self._markup.state = state.markup


@dataclass
class ReaderState:
    """What a reader remembers of a text."""

    pieces: tuple[Piece, ...]
    before: tuple[str, ...]
    lead: str
    spoken: int
    end: int
    paused_s: float
    started: bool
    begun: bool
    skipped: SkippedText | None
    markup: MarkupState | None

    def check(self) -> None:
        """Make sure that values from elsewhere are possible.

        Raises:
            ValueError: they are not.
        """
        texts = [*self.before, self.lead, *([self.skipped.text, self.skipped.reason] if self.skipped else [])]
        texts += [text for piece in self.pieces for text in (piece.text, piece.unread, piece.phonemes, *piece.words)]
        spans = [(piece.begin, piece.end) for piece in self.pieces] + [(self.end, self.end)]
        spans += [(self.skipped.begin, self.skipped.end)] if self.skipped else []
        if len(self.pieces) > MOST_PIECES or len(self.before) > REMEMBERED:
            raise ValueError("a saved reader has more text than one can have")
        if any(len(text) > LONGEST_SAVED for text in texts) or any(len(p.words) > LONGEST_SAVED for p in self.pieces):
            raise ValueError("a saved piece of text is too long")
        if not all(0 <= begin <= end <= MOST for begin, end in spans) or not 0 <= self.spoken <= MOST:
            raise ValueError("a saved place is outside the text")
        if not all(SLOWEST <= p.rate <= FASTEST and 0 <= p.pause_s <= LONGEST_BREAK_S for p in self.pieces):
            raise ValueError("a saved tempo or pause is not possible")
        if not 0 <= self.paused_s <= LONGEST_BREAK_S:
            raise ValueError("a saved pause is not possible")
        if any(character.isspace() for piece in self.pieces for character in piece.text):
            raise ValueError("a saved piece of text has white space in it")
        if self.markup:
            self.markup.check()
