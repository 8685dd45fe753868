"""When does someone speak, and when is an utterance over: decisions from speech probabilities, in audio time."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class SpeechOptions:
    """How probabilities become speech and silence; times in seconds.

    Raises:
        ValueError: thresholds or times are out of order.
    """

    frame_s: float = 0.032  # audio per probability, as `SileroVad` gives them
    start_threshold: float = 0.5  # speech begins at this probability …
    end_threshold: float = 0.35  # … and ends below this one; between the two nothing changes
    min_speech_s: float = 0.1  # shorter sounds are not speech
    min_silence_s: float = 0.1  # shorter gaps do not end it
    padding_s: float = 0.03  # added to speech on both sides

    def __post_init__(self) -> None:
        if not 0 < self.end_threshold <= self.start_threshold <= 1:
            got = f"{self.end_threshold} and {self.start_threshold}"
            raise ValueError(f"expected 0 < end_threshold <= start_threshold <= 1, got {got}")
        if self.frame_s <= 0 or min(self.min_speech_s, self.min_silence_s, self.padding_s) < 0:
            raise ValueError(f"expected frame_s > 0 and no negative times, got {self}")
        if self.padding_s > self.min_silence_s:  # the end of speech would lie in the future when it is announced
            raise ValueError(f"padding_s {self.padding_s} exceeds min_silence_s {self.min_silence_s}; lower it")


# What is kept of a recording whose pauses are left out, as in faster-whisper: a pause shorter than two seconds belongs
# to the speech, and no sound is too short to be a word.
FILTERED_SPEECH = SpeechOptions(min_speech_s=0.0, min_silence_s=2.0, padding_s=0.4)


@dataclass(frozen=True)
class EndpointRule:
    """Conditions that together end an utterance (after Kaldi's `online-endpoint.h`); times in seconds.

    An utterance lasts from the previous endpoint on. Silence counts once it has ended speech (`min_silence_s`).
    """

    name: str
    silence_s: float  # of silence at the end, or since the previous endpoint
    utterance_s: float = 0.0  # of utterance in all
    needs_speech: bool = True  # whether there was speech in it


DEFAULT_RULES = (
    EndpointRule("nothing said", silence_s=2.4, needs_speech=False),
    EndpointRule("pause", silence_s=0.8),
    EndpointRule("long utterance", silence_s=0.2, utterance_s=20.0),  # ends at the next short pause
)


@dataclass(frozen=True)
class SpeechStart:
    """Speech began at ``time_s``; known at ``decided_s``."""

    time_s: float
    decided_s: float


@dataclass(frozen=True)
class SpeechEnd:
    """Speech ended at ``time_s``; known at ``decided_s``."""

    time_s: float
    decided_s: float


@dataclass(frozen=True)
class UtteranceEnd:
    """The utterance is over at ``time_s``, by the rule of that name."""

    time_s: float
    rule: str


@dataclass
class EndpointMemory:
    """All that an `Endpointer` remembers of its stream: plain numbers, so `dataclasses.asdict` of it is JSON."""

    frames: int = 0  # probabilities fed
    onset: int | None = None  # first frame of the sound going on
    release: int | None = None  # first frame of the gap in it
    confirmed: bool = False  # whether that sound has been announced as speech
    heard: bool = False  # whether this utterance has speech
    silent_since: int = 0  # end of the last speech or utterance
    utterance_start: int = 0
    last_end_s: float = 0.0  # of the speech announced last

    @classmethod
    def from_dict(cls, values: Mapping[str, Any]) -> EndpointMemory:
        """Inverse of `dataclasses.asdict`.

        Raises:
            ValueError: the values are not those of a stream.
        """
        try:
            memory = cls(**values)
        except TypeError as error:
            raise ValueError(f"not the memory of an end-pointer: {error}") from error
        onset, release = memory.onset, memory.release
        counts = (memory.frames, memory.silent_since, memory.utterance_start, onset or 0, release or 0)
        sound = (
            all(type(count) is int and 0 <= count <= memory.frames <= 2**44 for count in counts)
            and (release is None or (onset is not None and onset <= release))
            and isinstance(memory.confirmed, bool)
            and isinstance(memory.heard, bool)
            and type(memory.last_end_s) in (int, float)
            and 0 <= memory.last_end_s <= 2**44
        )
        if not sound:
            raise ValueError(f"not the memory of an end-pointer: {str(memory)[:200]}")
        return memory


@dataclass
class Endpointer:
    """Speech starts, speech ends and endpoints of one stream.

    To go on from a snapshot, pass the same options and rules and `EndpointMemory(**saved)`.
    """

    options: SpeechOptions = SpeechOptions()
    rules: tuple[EndpointRule, ...] = DEFAULT_RULES
    memory: EndpointMemory = field(default_factory=EndpointMemory)

    @property
    def speaking(self) -> bool:
        """Whether announced speech is going on."""
        return self.memory.confirmed

    def feed(self, probability: float) -> list[SpeechStart | SpeechEnd | UtteranceEnd]:
        """Take the speech probability of the next frame; return what it decides, in order."""
        options, memory = self.options, self.memory
        events: list[SpeechStart | SpeechEnd | UtteranceEnd] = []
        frame = memory.frames
        memory.frames += 1

        if probability >= options.start_threshold:
            memory.release = None
            if memory.onset is None:
                memory.onset = frame
        elif probability < options.end_threshold and memory.onset is not None and memory.release is None:
            memory.release = frame

        if memory.onset is not None and memory.release is None:
            if not memory.confirmed and self._lasted(memory.onset, options.min_speech_s):
                events.append(self._start(memory.onset))
        elif memory.release is not None and self._lasted(memory.release, options.min_silence_s):
            if memory.confirmed:
                events.append(self._end(memory.release))
            memory.onset = memory.release = None

        if memory.onset is None:  # not in the middle of what may become speech
            for rule in self.rules:
                if (
                    self._lasted(memory.silent_since, rule.silence_s)
                    and self._lasted(memory.utterance_start, rule.utterance_s)
                    and (memory.heard or not rule.needs_speech)
                ):
                    events.append(UtteranceEnd(self._now, rule.name))
                    memory.heard, memory.silent_since, memory.utterance_start = False, memory.frames, memory.frames
                    break
        return events

    def finish(self) -> list[SpeechEnd]:
        """End the stream: speech that goes on ends here."""
        memory = self.memory
        events = []
        if memory.confirmed:
            events.append(self._end(memory.frames if memory.release is None else memory.release))
        memory.onset = memory.release = None
        return events

    @property
    def _now(self) -> float:
        return self.memory.frames * self.options.frame_s

    def _lasted(self, since: int, duration_s: float) -> bool:
        return (self.memory.frames - since) * self.options.frame_s >= duration_s - 1e-9

    def _start(self, onset: int) -> SpeechStart:
        memory = self.memory
        memory.confirmed = memory.heard = True
        time_s = max(onset * self.options.frame_s - self.options.padding_s, memory.last_end_s)
        return SpeechStart(time_s, self._now)

    def _end(self, release: int) -> SpeechEnd:
        memory = self.memory
        memory.confirmed, memory.silent_since = False, release
        memory.last_end_s = min(release * self.options.frame_s + self.options.padding_s, self._now)
        return SpeechEnd(memory.last_end_s, self._now)


def speech_segments(probabilities: Iterable[float], options: SpeechOptions | None = None) -> list[tuple[float, float]]:
    """Stretches of speech of a whole recording as (start, end) in seconds, in order and without overlap."""
    endpointer = Endpointer(options or SpeechOptions(), rules=())
    events = [event for probability in probabilities for event in endpointer.feed(probability)] + endpointer.finish()
    starts = [event.time_s for event in events if isinstance(event, SpeechStart)]
    ends = [event.time_s for event in events if isinstance(event, SpeechEnd)]
    return list(zip(starts, ends, strict=True))
