"""What a synthesiser remembers of one stream on the host."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field, fields
from typing import Any

from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.snapshot import MOST
from loquent.tts.frontend.elements import FASTEST, SLOWEST
from loquent.tts.frontend.reader import LONGEST_SAVED, Reader, ReaderOptions
from loquent.tts.frontend.spoken import SpokenWord
from loquent.tts.options import SpeechOptions

REMEMBERED = 200  # words that were spoken: what of them was heard can be told


@dataclass(frozen=True)
class TimedText:
    """A piece of the input text that was spoken, or is being.

    text:        with the white space before it.
    begin, end:  its characters in the stream's text, without that white space.
    first, last: samples of the stream's speech at which it begins and ends.
    """

    text: str
    begin: int
    end: int
    first: int
    last: int


@dataclass
class SpeechMemo:
    """
    options:  of the stream.
    reader:   the front end, with the text whose words are not known yet.
    source:   the input text from character ``source_at`` on, as far back as it is still needed.
    words:    spoken words of the utterance: those before the next one that are its context, the next one, and more.
    at:       which of them comes next.
    trimmed:  whether words at the beginning of the utterance have been dropped.
    told:     characters of the input text up to which words have been timed.
    queued:   frames in the state's queue; ``frame``, the number of the first one from the start of the stream.
    offset:   sample at which frame 0 would have begun: not 0 once speech was interrupted.
    rendered: whether frames of the utterance have gone into the renderer.
    lent:     samples of the utterance that were given early and are still to come from the renderer.
    fading:   whether the sample behind them is to be faded into.
    closing:  whether the utterance ends with the queue; ``pause``, frames of silence that follow it then.
    silence:  frames of silence that come next.
    samples:  given out.
    said:     what was or is to be spoken, the newest last; at the end are ``unbegun`` of which no sample has been given
              out, and ``untold`` that have not ended.
    opened:   how many of ``said`` are of the utterance.
    ended:    whether the text has ended.
    time_s:   of the newest word that was read; ``lag_s``, seconds of earlier speech that were still to be heard then.
    since_s:  time of the utterance's first word.
    """

    options: SpeechOptions
    reader: Reader
    source: str = ""
    source_at: int = 0
    words: list[SpokenWord] = field(default_factory=list)
    at: int = 0
    trimmed: bool = False
    told: int = 0
    queued: int = 0
    frame: int = 0
    offset: int = 0
    rendered: bool = False
    lent: int = 0
    fading: bool = False
    closing: bool = False
    pause: int = 0
    silence: int = 0
    samples: int = 0
    said: list[TimedText] = field(default_factory=list)
    unbegun: int = 0
    untold: int = 0
    opened: int = 0
    ended: bool = False
    time_s: float = 0.0
    lag_s: float = 0.0
    since_s: float = 0.0

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        values = {one.name: getattr(self, one.name) for one in fields(self)}
        return values | {
            "options": asdict(self.options),
            "reader": self.reader.to_dict(),
            "words": [asdict(word) for word in self.words],
            "said": [asdict(piece) for piece in self.said],
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> SpeechMemo:
        """Inverse of `to_dict`; the values may come from anywhere.

        Raises:
            ValueError, KeyError, TypeError: they are not those of such a stream.
        """
        options = parse_options(SpeechOptions, values["options"])
        reader = Reader(ReaderOptions(options.ssml, options.lexicon))
        reader.restore(values["reader"])
        lists = {name: values[name] for name in ("words", "said")}
        words = [parse_options(SpokenWord, word) for word in lists["words"]]
        said = [parse_options(TimedText, piece) for piece in lists["said"]]
        plain = parse_options(_Plain, {one.name: values[one.name] for one in fields(_Plain)})
        memo = cls(options, reader, words=words, said=said, **asdict(plain))
        memo.check()
        return memo

    def check(self) -> None:
        """Make sure that the values belong together.

        Raises:
            ValueError: they do not.
        """
        counts = [self.source_at, self.at, self.told, self.queued, self.frame, self.lent, self.pause, self.silence]
        counts += [self.samples, self.unbegun, self.untold, self.opened]
        if not all(0 <= count <= MOST for count in counts) or not -MOST <= self.offset <= MOST:
            raise ValueError("a saved position or count is out of range")
        if not all(0 <= time_s <= MOST for time_s in (self.time_s, self.lag_s, self.since_s)):
            raise ValueError("a saved time is out of range")
        if self.at > len(self.words) or max(self.unbegun, self.untold, self.opened) > len(self.said):
            raise ValueError("the saved words do not fit their counts")
        if not all(0 <= word.begin <= word.end <= MOST for word in self.words):
            raise ValueError("a saved word is outside the text")
        if not all(word.pause_s >= 0 and SLOWEST <= word.rate <= FASTEST for word in self.words):
            raise ValueError("a saved word has a pause or a tempo that is not possible")
        if any(len(word.text) > LONGEST_SAVED or len(word.phonemes or "") > LONGEST_SAVED for word in self.words):
            raise ValueError("a saved word is too long")
        places = [place for piece in self.said for place in (piece.begin, piece.end)]
        times = [time for piece in self.said for time in (piece.first, piece.last)]
        if [0, *places, self.told] != sorted([0, *places, self.told]) or times != sorted([0, *times])[1:]:
            raise ValueError("saved words that were spoken do not follow each other")


@dataclass(frozen=True)
class _Plain:
    source: str
    source_at: int
    at: int
    trimmed: bool
    told: int
    queued: int
    frame: int
    offset: int
    rendered: bool
    lent: int
    fading: bool
    closing: bool
    pause: int
    silence: int
    samples: int
    unbegun: int
    untold: int
    opened: int
    ended: bool
    time_s: float
    lag_s: float
    since_s: float
