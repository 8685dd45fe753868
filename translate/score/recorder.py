"""From the events of a stream of translation to an instance."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Literal

from loquent.speech.runtime.events import Event, Final, Partial, Translation, Word
from loquent.translate.score.clock import VirtualClock
from loquent.translate.score.instance import Instance, TargetUnit, target_units
from loquent.translate.score.stability import common_prefix


class Recorder:
    """Listens to one stream, of text or of speech.

    A committed word has the emission time of the event that completed it as its delay. Of a stream of speech these are
    seconds. Of a stream of text they are source words, if each word comes with its number as its time:
    ``session.push(Text(word + " ", number))``, numbers from 1.

    What is shown is the committed text and the unstable tail behind it. It is looked at whenever the source goes on and
    at the end of an utterance; words of it that change count as erased, but for a last one that goes on.

    Args:
        unit: of the emission times: "s", or "words".
        target_unit: what counts in the translation.
        stage: of a pipeline, the one to listen to.
    """

    def __init__(self, unit: Literal["words", "s"] = "s", target_unit: TargetUnit = "word", stage: str = "") -> None:
        self.unit, self.target_unit, self.stage = unit, target_unit, stage
        self._words: list[str] = []  # committed
        self._delays: list[float] = []
        self._elapsed: list[float] = []
        self._begin = 0  # number of the first word of the utterance
        self._open = False  # whether the last word may go on
        self._tail: list[str] = []  # unstable
        self._shown: list[str] = []  # of the utterance, when it was last looked at
        self._erased = 0
        self._time = 0.0
        self._arrived = 0.0
        self._clock = VirtualClock()
        self._timed = False

    def take(self, events: Iterable[Event], *, at: float | None = None, computed: float | None = None) -> None:
        """Take up what a step of the stream brought; call it after every step that is timed.

        Args:
            events: in their order; those of other stages and of other kinds are passed over.
            at: how much of the source was there for the step; by default, the emission time of the last event.
            computed: how long the step took, in the unit of the source. For words, in words: seconds divided by the
                seconds that a source word takes.
        """
        heard = [event for event in events if event.stage == self.stage]
        if at is None and heard:
            at = heard[-1].emission_time
        self._arrived = max(self._arrived, at or 0.0)
        self._timed |= computed is not None
        self._clock.step(self._arrived, computed or 0.0)
        for event in heard:
            if event.emission_time != self._time:
                self._look()
                self._time = event.emission_time
            match event:
                case Translation(text=text) | Word(text=text):
                    self._append(text)
                case Partial(stable=stable, unstable=unstable):
                    words = target_units(stable, self.target_unit)
                    if len(words) > len(self._words) - self._begin:  # there are no events for its words
                        self._commit(self._begin, words)
                        self._open = False
                    self._tail = target_units(unstable, self.target_unit)
                case Final(text=text):
                    self._commit(self._begin, target_units(text, self.target_unit))
                    self._look()
                    self._begin, self._open, self._shown = len(self._words), False, []

    def instance(self, source_length: float, reference: str | None = None, source: str = "") -> Instance:
        """What was said so far, and when.

        Raises:
            ValueError: the times do not fit the unit, as of a stream of text whose words came without numbers.
        """
        if self.unit == "words" and self._delays and not self._delays[-1]:
            raise ValueError("all emission times are 0: push each source word with its number, Text(word, number)")
        self._look()
        return Instance(
            (" " if self.target_unit == "word" else "").join(self._words),
            tuple(self._delays),
            source_length,
            reference,
            tuple(self._elapsed) if self._timed else None,
            self.unit,
            self.target_unit,
            erased=self._erased,
            source=source,
        )

    def _append(self, text: str) -> None:
        goes_on = self._open and self.target_unit == "word" and not text[:1].isspace()
        first = len(self._words) - goes_on
        self._commit(first, target_units("".join(self._words[first:]) + text, self.target_unit))
        self._open = not text[-1:].isspace()

    def _commit(self, first: int, words: list[str]) -> None:
        """Let the committed words be these from the one of number ``first`` on; those that are new come now."""
        kept = first + common_prefix(self._words[first:], words)
        new = words[kept - first :]
        self._words[kept:] = new
        self._delays[kept:] = [self._time] * len(new)
        self._elapsed[kept:] = [self._clock.now] * len(new)
        self._tail = []

    def _look(self) -> None:
        shown = self._words[self._begin :] + self._tail
        kept = common_prefix(self._shown, shown)
        grown = kept == len(self._shown) - 1 and kept < len(shown) and shown[kept].startswith(self._shown[kept])
        self._erased += len(self._shown) - kept - grown
        self._shown = shown
