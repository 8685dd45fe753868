"""What is said beside its translation, utterance by utterance, from the events of a pipeline that does both."""

from __future__ import annotations

from dataclasses import dataclass, field

from loquent.speech.runtime.events import Event, Final, Partial, Translation, Word
from loquent.speech.transcript import Segment, WordTiming

RECOGNITION, TRANSLATION, SPEECH = "recognize", "translate", "speak"  # names of the stages


@dataclass
class Utterance:
    """An utterance that may still change.

    stable, unstable:   what was said, committed and tentative.
    translation, draft: likewise.
    words:              that are committed, with their times.
    final:              once it has ended, ``end`` is the position of that in all committed text, in characters.
    """

    stable: str = ""
    unstable: str = ""
    translation: str = ""
    draft: str = ""
    words: list[WordTiming] = field(default_factory=list)
    final: Final | None = None
    end: int | None = None

    def segment(self) -> Segment:
        """It as a segment."""
        assert self.final is not None
        words, final = tuple(self.words), self.final
        return Segment(final.start, final.end, final.text, words, translation=self.translation.strip())


class Bilingual:
    """Takes events of both stages in any order that a pipeline or a server gives them in.

    An utterance is complete when the translator has told the end of it: the end of the utterance has flushed it.

    Attributes:
        utterances: that are not complete, in order; the last may be empty.
    """

    def __init__(self) -> None:
        self.utterances = [Utterance()]
        self._position = 0  # in the committed text
        self._told, self._closed = (
            0,
            True,
        )  # how far the translation has come, and whether it is at the end of something

    def add(self, event: Event) -> list[Segment]:
        """Take an event; returns the utterances that it completes."""
        if event.stage == TRANSLATION:
            self._translated(event)
        elif event.stage == RECOGNITION:
            self._recognised(event)
        done = []
        while self.utterances[0].final is not None and self._complete():
            done.append(self.utterances.pop(0).segment())
        return done

    def finish(self) -> list[Segment]:
        """The utterances that have ended; what the translator has said of them is all there is."""
        ended = [one.segment() for one in self.utterances if one.final is not None]
        self.utterances = [Utterance()]
        return ended

    def _recognised(self, event: Event) -> None:
        current = self.utterances[-1]
        match event:
            case Word():
                current.words.append(WordTiming(event.text, event.start, event.end, event.confidence))
                self._position += len(event.text)
            case Partial():
                current.stable, current.unstable = event.stable, event.unstable
            case Final():
                current.final, current.end = event, self._position
                current.stable, current.unstable = event.text, ""
                self.utterances.append(Utterance())

    def _translated(self, event: Event) -> None:
        match event:
            case Translation(span=(first, end)):
                of = self._at(first, end)
                of.translation, of.draft = of.translation + event.text, ""
                self._told, self._closed = max(self._told, end), False
            case Partial():
                self._at(self._told, self._told + 1).draft = event.unstable
            case Final():
                self._closed = True

    def _at(self, first: int, end: int) -> Utterance:
        """The utterance that a translation belongs to: one that stands for nothing is of what is before it."""
        for one in self.utterances:
            if one.end is None or first < one.end or (first == end == one.end):
                return one
        return self.utterances[-1]

    def _complete(self) -> bool:
        first, following = self.utterances[0], self.utterances[1]
        told = self._closed and first.end is not None and self._told >= first.end
        return told or bool(following.translation)
