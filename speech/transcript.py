"""What was said in a recording or a stream, and when: words, segments, transcripts."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from loquent.speech.runtime.events import Event

Progress = Callable[[int, float, float | None], None]  # recording, seconds done, seconds in all if known


@dataclass(frozen=True)
class WordTiming:
    """A word and when it was said, in seconds, with or without the space before it; `confidence` in [0, 1] or None."""

    text: str
    start: float
    end: float
    confidence: float | None = None

    def __post_init__(self) -> None:
        _check_times("word", self.text, self.start, self.end)


@dataclass(frozen=True)
class TokenLogprob:
    """A token of a text, as its model wrote it, and its log-probability given what is before it.

    text:  U+FFFD stands for bytes that are no whole character.
    bytes: of the text in UTF-8; those of all tokens make up the text, a space at its beginning included.
    """

    text: str
    logprob: float
    bytes: tuple[int, ...]


@dataclass(frozen=True)
class Segment:
    """A stretch of speech: `start` and `end` in seconds, the text as emitted, and its words if they were timed.

    The rest tells how the window of audio that it was found in was decoded, by the names that Whisper gives it. It is
    None where the recogniser does not work in such windows.

    seek:              of the window, in frames of 10 ms from the start of the recording.
    tokens:            of this segment, its timestamps included.
    logprobs:          of the tokens of its text, if they were asked for.
    temperature:       that the window's text was sampled at; 0: the most probable one.
    avg_logprob:       of the window's text, per token.
    compression_ratio: of the window's text under zlib; above 2.4 it repeats itself.
    no_speech_prob:    that nobody speaks in the window.
    translation:       of the text; None if it was not translated.
    """

    start: float
    end: float
    text: str
    words: tuple[WordTiming, ...] = ()
    seek: int | None = None
    tokens: tuple[int, ...] | None = None
    temperature: float | None = None
    avg_logprob: float | None = None
    compression_ratio: float | None = None
    no_speech_prob: float | None = None
    logprobs: tuple[TokenLogprob, ...] | None = None
    translation: str | None = None

    def __post_init__(self) -> None:
        _check_times("segment", self.text, self.start, self.end)


@dataclass(frozen=True)
class Transcript:
    """The text of a recording."""

    text: str
    segments: tuple[Segment, ...]
    language: str  # code
    language_probability: float  # 1.0 if it was given
    duration_s: float
    warnings: tuple[str, ...] = ()  # what is damaged in the recording, or missing of it, a sentence each


class SegmentBuilder:
    """Makes a segment of every utterance of a stream, with its words."""

    def __init__(self) -> None:
        self._words: list[WordTiming] = []

    def add(self, event: Event) -> Segment | None:
        """Take the stream's next event; returns the segment that it completes."""
        from loquent.speech.runtime.events import Final, Word  # need numpy, which the command line's help does not

        if isinstance(event, Word):
            self._words.append(WordTiming(event.text, event.start, event.end, event.confidence))
        if not isinstance(event, Final):
            return None
        words, self._words = tuple(self._words), []
        return Segment(event.start, event.end, event.text, words)


def _check_times(what: str, text: str, start: float, end: float) -> None:
    if not 0 <= start <= end < float("inf"):
        raise ValueError(f"expected 0 <= start <= end in seconds, got {start} and {end} for the {what} {text!r}")
