"""How far an agent's speech has been heard, in the time of the conversation."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import NamedTuple

from loquent.speech.runtime.events import Speech


class Given(NamedTuple):
    """Speech that was given out: when it is heard, in seconds of the conversation, and where the voice has it."""

    start: float
    end: float
    voice_start: float
    span_end: int


@dataclass
class Playback:
    """A loudspeaker as the conversation sees it: what is given is heard at once, or after what was given before.

    Attributes:
        begin, end: of the last stretch of speech, in seconds of the conversation.
        voice_end: seconds of the voice's own speech that were given.
        given: the speech of the last reply.
    """

    begin: float = 0.0
    end: float = 0.0
    voice_end: float = 0.0
    given: list[Given] = field(default_factory=list)

    def start_anew(self) -> None:
        """Another reply begins."""
        self.given.clear()

    def is_on(self, time: float) -> bool:
        """Whether speech is being heard at a time."""
        return bool(self.given) and time < self.end

    def give(self, speech: Speech, now: float) -> Speech:
        """The same speech with the time at which it is heard if it is given ``now``."""
        start = max(self.end, now)
        if not self.given:
            self.begin = start
        self.end = start + speech.end - speech.start
        self.given.append(Given(start, self.end, speech.start, speech.span[1]))
        self.voice_end = speech.end
        return replace(speech, start=start, end=self.end)

    def voice_time(self, time: float) -> float:
        """Seconds of the voice's speech that were heard at a time of the conversation."""
        for one in reversed(self.given):
            if one.start <= time:
                return one.voice_start + min(time, one.end) - one.start
        return self.given[0].voice_start if self.given else self.voice_end

    def time(self, voice_time: float) -> float:
        """Inverse of `voice_time`."""
        for one in reversed(self.given):
            if one.voice_start <= voice_time:
                return one.start + voice_time - one.voice_start
        return self.given[0].start if self.given else self.end

    def text_end(self, time: float) -> int:
        """Where in the voice's text the pieces end that were heard whole at a time; 0 for none."""
        return max((one.span_end for one in self.given if one.end <= time), default=0)

    def stop(self, time: float, voice_time: float) -> None:
        """Nothing is heard after ``time``."""
        self.end, self.voice_end = min(self.end, time), voice_time
