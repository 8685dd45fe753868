"""What was interpreted: each sentence, with the words it stands for and the place of its speech."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, field

from loquent.speech.audio.files import Audio
from loquent.speech.runtime.events import Event, Final, Speech, Translation, Word
from loquent.tts.synthesizer import collected

RECOGNIZE, TRANSLATE, SPEAK = "recognize", "translate", "speak"  # names of stages


@dataclass(frozen=True)
class InterpretedSegment:
    """A sentence or another stretch of a translation. All times are in seconds from the start of the recording.

    source:     text that it stands for; empty where a model translates speech and does not write it down.
    text:       the translation.
    start, end: of the source.
    committed:  when the last of the translation was committed.
    spoken:     begin and end of its speech in the audio of the interpretation; None if it was not spoken.
    """

    source: str
    text: str
    start: float
    end: float
    committed: float
    spoken: tuple[float, float] | None = None


@dataclass(frozen=True)
class Interpretation:
    """A recording in another language.

    segments: in order.
    audio:    speech, each sentence at the time at which it is heard if the recording is played beside it; None for
              captions alone.
    """

    segments: tuple[InterpretedSegment, ...]
    audio: Audio | None = None

    @property
    def text(self) -> str:
        """The whole translation."""
        return " ".join(segment.text for segment in self.segments)


@dataclass
class _Stretch:
    """Translated pieces up to a `Final`.

    begin:  position in the translated text at which they begin.
    pieces: in order.
    heard:  words that the translator itself heard.
    final:  its end, if it has one.
    """

    begin: int
    pieces: list[Translation] = field(default_factory=list)
    heard: list[Word] = field(default_factory=list)
    final: Final | None = None

    @property
    def text(self) -> str:
        return "".join(piece.text for piece in self.pieces)


def interpretation_of(events: Sequence[Event], sample_rate: int | None) -> Interpretation:
    """Put the events of a pipeline together.

    Args:
        events: of all stages, which have the names above.
        sample_rate: of the speech, in Hz; None without a voice.
    """
    heard = [event for event in events if event.stage == RECOGNIZE and isinstance(event, Word)]
    spoken = [event for event in events if event.stage == SPEAK]
    stretches = _stretches([event for event in events if event.stage == TRANSLATE])
    segments = tuple(_segment(one, heard, spoken) for one in stretches)
    return Interpretation(segments, None if sample_rate is None else collected(spoken, sample_rate))


def _stretches(events: Sequence[Event]) -> list[_Stretch]:
    stretches = [_Stretch(0)]
    for event in events:
        if isinstance(event, Translation):
            stretches[-1].pieces.append(event)
        elif isinstance(event, Word):
            stretches[-1].heard.append(event)
        elif isinstance(event, Final):
            stretches[-1].final = event
            stretches.append(_Stretch(stretches[-1].begin + len(stretches[-1].text)))
    return [one for one in stretches if one.text.strip()]


def _segment(stretch: _Stretch, heard: Sequence[Word], spoken: Sequence[Event]) -> InterpretedSegment:
    source = stretch.heard or _within(stretch, heard)
    begin, end = stretch.begin, stretch.begin + len(stretch.text)
    speech = [one for one in spoken if isinstance(one, Speech) and begin <= one.span[0] < end and one.text]
    committed = stretch.pieces[-1].emission_time
    whole = stretch.final or Final(text="", start=stretch.pieces[0].emission_time, end=committed)
    return InterpretedSegment(
        "".join(word.text for word in source).strip(),
        stretch.text.strip(),
        source[0].start if source else whole.start,
        source[-1].end if source else whole.end,
        committed,
        (speech[0].start, speech[-1].end) if speech else None,
    )


def _within(stretch: _Stretch, heard: Sequence[Word]) -> list[Word]:
    """The words that a stretch was translated from."""
    spans = [piece.span for piece in stretch.pieces]
    begin, end = min(first for first, _ in spans), max(last for _, last in spans)
    ends = itertools.accumulate(len(word.text) for word in heard)
    return [word for word, last in zip(heard, ends, strict=True) if begin < last <= end]
