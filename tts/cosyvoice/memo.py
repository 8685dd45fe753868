"""What CosyVoice remembers of one stream on the host, and how that is saved and believed again."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import asdict, dataclass, field, replace
from typing import Any

from loquent.speech.runtime.options import parse_options
from loquent.speech.runtime.snapshot import MOST
from loquent.tts.cosyvoice.options import CosyVoiceOptions
from loquent.tts.cosyvoice.stages import Utterance
from loquent.tts.cosyvoice.voice import Voice
from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.script import Script

REMEMBERED = 60  # pieces of text that were given out with speech: what of them was heard can be told
MOST_SOURCE = 1 << 14  # characters of text under way


@dataclass(frozen=True)
class ToldText:
    """Text that was given out with a piece of speech.

    text:       with the white space before it.
    begin, end: its characters in the stream's text, without that white space.
    last:       sample of the stream's speech at which the piece of speech ends.
    """

    text: str
    begin: int
    end: int
    last: int


@dataclass
class CosyVoiceMemo:
    """
    options:   of the stream.
    prompt:    digest of its voice.
    utterance: the one under way; its text is the first ``used`` characters of ``source``.
    number:    utterances that have begun since the start or the last interruption.
    source:    text of the utterance, and behind it what the utterance had no room for or does not need;
               ``source_at``: its position in the stream's text.
    held:      text of the utterance whose tokens may still change.
    words:     of the utterance.
    first:     sample at which the utterance's speech begins.
    told:      characters of the stream's text up to which speech has been given out.
    said:      what was given out with speech, the newest last.
    samples:   given out.
    closing:   whether the text of ``source`` is to be spoken without waiting for more.
    ended:     whether the text has ended.
    """

    options: CosyVoiceOptions
    prompt: str
    utterance: Utterance | None = None
    number: int = 0
    source: str = ""
    source_at: int = 0
    used: int = 0
    held: str = ""
    words: int = 0
    first: int = 0
    told: int = 0
    said: list[ToldText] = field(default_factory=list)
    samples: int = 0
    closing: bool = False
    ended: bool = False

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        utterance = None if self.utterance is None else asdict(SavedUtterance.of(self.utterance))
        nested = {"options": asdict(self.options), "said": [asdict(one) for one in self.said], "utterance": utterance}
        return vars(self) | nested


@dataclass(frozen=True)
class SavedUtterance:
    """What of an `Utterance` and its `Script` does not follow from the options, the voice and the model.

    prompt: how many codes of the voice's speech wait for their text.
    """

    due: tuple[int, ...]
    text: tuple[int, ...]
    prompt: int
    prefixed: bool
    room: int
    ended: bool
    closing: bool
    done: bool
    given: int
    drawn: int
    spoken: int
    recent: tuple[int, ...]
    waiting: tuple[int, ...]
    taken: int
    frames: int
    silent: int
    speaks: bool

    @classmethod
    def of(cls, utterance: Utterance) -> SavedUtterance:
        """The values of an utterance."""
        script = utterance.script
        return cls(
            due=tuple(script.due),
            text=tuple(script.text),
            prompt=len(script.prompt),
            prefixed=script.prefixed,
            room=script.room,
            ended=script.ended,
            closing=script.closing,
            done=script.done,
            given=script.given,
            drawn=script.drawn,
            spoken=script.spoken,
            recent=tuple(script.recent),
            waiting=tuple(utterance.waiting),
            taken=utterance.taken,
            frames=utterance.frames,
            silent=utterance.silent,
            speaks=utterance.spoken,
        )

    def utterance(self, script: Script, voice: Voice, bounds: Bounds) -> Utterance:
        """The utterance.

        Args:
            script: as it was when it began.

        Raises:
            ValueError: the values are not those of such an utterance.
        """
        self._check(script.layout, voice, bounds)
        restored = replace(
            script,
            due=list(self.due),
            text=list(self.text),
            prompt=list(voice.spoken[len(voice.spoken) - self.prompt :]),
            prefixed=self.prefixed,
            room=self.room,
            ended=self.ended,
            closing=self.closing,
            done=self.done,
            given=self.given,
            drawn=self.drawn,
            spoken=self.spoken,
            recent=list(self.recent),
        )
        utterance = Utterance(
            restored,
            list(self.waiting),
            self.taken,
            self.frames,
            prompted=0 if voice.mel is None else len(voice.mel),
            silent=self.silent,
            spoken=self.speaks,
        )
        if restored.ready() and not restored.due:
            raise ValueError("a saved utterance has nothing to go on from")
        if not 0 <= fed(restored, voice) <= bounds.capacity:
            raise ValueError("the saved counts of an utterance do not fit each other")
        return utterance

    def _check(self, layout: SpeechLayout, voice: Voice, bounds: Bounds) -> None:
        marks = 0 if layout.marks else 2
        _check_each("due", self.due, layout.text + layout.rows + marks, bounds.capacity)
        _check_each("text", self.text, layout.text, len(voice.text) + self.given)
        _check_each("recent", self.recent, layout.rows, bounds.window)
        _check_each("waiting", self.waiting, layout.codes, bounds.capacity + len(voice.speech))
        largest = {
            "prompt": len(voice.spoken),
            "room": layout.speech_block,
            "given": bounds.tokens,
            "drawn": 2 * bounds.capacity,
            "spoken": bounds.capacity,
            "taken": bounds.capacity + len(voice.speech),
            "frames": 2 * (bounds.capacity + len(voice.speech)),
            "silent": bounds.capacity,
        }
        for name, most in largest.items():
            if not 0 <= getattr(self, name) <= most:
                raise ValueError(f"saved {name} of an utterance is {getattr(self, name)}, expected 0 to {most}")
        if (self.closing and not self.ended) or (self.done and not self.closing):
            raise ValueError("a saved utterance ends before its text")
        if not self.prefixed and layout.end_of_prompt not in self.text:
            raise ValueError("a saved utterance has lost the end of its prompt")


@dataclass(frozen=True)
class Bounds:
    """Of an utterance of one voice.

    capacity: of the language model, in steps. tokens: of text, at most. window: draws that are remembered.
    """

    capacity: int
    tokens: int
    window: int


def fed(script: Script, voice: Voice) -> int:
    """How many steps the language model has taken of an utterance."""
    text = len(voice.text) + script.given - len(script.text)
    speech = len(voice.spoken) - len(script.prompt) + script.spoken
    return 1 + text + speech + script.closing - len(script.due)


@dataclass(frozen=True)
class _Plain:
    prompt: str
    number: int
    source: str
    source_at: int
    used: int
    held: str
    words: int
    first: int
    told: int
    samples: int
    closing: bool
    ended: bool


def memo_of(values: dict[str, Any]) -> tuple[CosyVoiceMemo, SavedUtterance | None]:
    """The memo without its utterance, and that; the values may come from anywhere.

    Raises:
        ValueError, KeyError, TypeError: they are not those of a memo.
    """
    plain = parse_options(_Plain, {name: values[name] for name in _Plain.__dataclass_fields__})
    options = parse_options(CosyVoiceOptions, values["options"])
    if not isinstance(values["said"], list) or len(values["said"]) > REMEMBERED:
        raise ValueError(f"saved said has to be a list of up to {REMEMBERED} pieces of text")
    said = [parse_options(ToldText, one) for one in values["said"]]
    saved = values["utterance"]
    utterance = None if saved is None else parse_options(SavedUtterance, saved)
    memo = CosyVoiceMemo(options, said=said, **asdict(plain))
    _check(memo, utterance is not None)
    return memo, utterance


def _check(memo: CosyVoiceMemo, speaks: bool) -> None:
    counts = [memo.number, memo.source_at, memo.words, memo.first, memo.told, memo.samples]
    counts += [count for one in memo.said for count in (one.begin, one.end - one.begin, one.last)]
    if not all(0 <= count <= MOST for count in counts):
        raise ValueError("a saved position or count is out of range")
    texts = [memo.source, memo.held, *(one.text for one in memo.said)]
    if any(len(text) > MOST_SOURCE or not _is_text(text) for text in texts):
        raise ValueError(f"a saved text has more than {MOST_SOURCE} characters, or half of a surrogate pair")
    if not 0 <= memo.used <= len(memo.source) or memo.first > memo.samples:
        raise ValueError("the saved text does not fit its counts")
    if not speaks and (memo.used or memo.held):
        raise ValueError("a saved text is under way without an utterance")
    if speaks and not memo.number:
        raise ValueError("a saved utterance has no number")


def _is_text(text: str) -> bool:
    return not any("\ud800" <= character <= "\udfff" for character in text)


def _check_each(name: str, numbers: Iterable[int], below: int, most: int) -> None:
    found = list(numbers)
    if len(found) > most or not all(0 <= number < below for number in found):
        raise ValueError(f"saved {name} of an utterance has to be up to {most} numbers from 0 to {below - 1}")
