"""Which log-mel frames of a recording have speech in or around them, decided while the recording is read."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.speech.audio.endpoint import FILTERED_SPEECH, Endpointer, SpeechEnd, SpeechOptions, SpeechStart
from loquent.speech.audio.vad import FRAME, SileroVad

HOP = 160  # samples per log-mel frame


class SpeechFilter:
    """Passes on the frames of speech; holds back no more than what came since the last pause began.

    Args:
        vad: read only, so that many recordings can share it.
        options: what is speech.

    Attributes:
        padding: frames kept on both sides of speech.
        threshold: a frame is speech from this probability on.
    """

    def __init__(self, vad: SileroVad, options: SpeechOptions = FILTERED_SPEECH) -> None:
        self._vad, self._state = vad, vad.initial_state(1)
        self._endpointer, self._frame_s = Endpointer(options, rules=()), options.frame_s
        self.padding, self.threshold = round(options.padding_s * 16_000) // HOP, options.start_threshold
        self._probabilities = torch.zeros(0)  # from `_first` · HOP // FRAME on
        self._mel: Tensor | None = None  # frames not decided yet, from `_first` on
        self._first = 0
        self._speech: list[tuple[int, int]] = []  # stretches (start, end) that reach beyond `_first`
        self._start: float | None = None  # of speech that goes on

    def step(self, samples: Tensor, mel: Tensor, last: bool = False) -> tuple[Tensor, Tensor, Tensor]:
        """Take what follows of the recording.

        Args:
            samples: (1, N) at 16 kHz.
            mel: the frames (T, F) that they complete.
            last: whether the recording ends here.

        Returns:
            The frames to keep among those that are decided by now, (K, F), the number of each in the recording, (K,),
            and the probability of speech in each, (K,).
        """
        with torch.inference_mode():
            new = self._vad.step(samples, self._state, last=last).data[0]
        self._probabilities = torch.cat([self._probabilities, new])
        decided = self._decide(new.tolist(), last)

        self._mel = mel if self._mel is None else torch.cat([self._mel, mel])
        end = min(decided, self._first + len(self._mel))
        places = torch.arange(self._first, max(end, self._first))
        keep = torch.zeros(len(places), dtype=torch.bool)
        for start, stop in self._speech:
            keep |= (places >= start) & (places < stop)
        begin = self._first * HOP // FRAME
        passed = self._mel[: len(places)][keep], places[keep], self._probabilities[places[keep] * HOP // FRAME - begin]

        self._mel, self._first = self._mel[len(places) :].clone(), self._first + len(places)
        self._probabilities = self._probabilities[self._first * HOP // FRAME - begin :].clone()
        self._speech = [(start, stop) for start, stop in self._speech if stop > self._first]
        return passed

    def _decide(self, probabilities: list[float], last: bool) -> int:
        """Add to the stretches of speech; returns the frame before which no more will be added."""
        endpointer, memory = self._endpointer, self._endpointer.memory
        events = [event for probability in probabilities for event in endpointer.feed(probability)]
        for event in [*events, *(endpointer.finish() if last else [])]:
            if isinstance(event, SpeechStart):
                self._start = event.time_s
            elif isinstance(event, SpeechEnd):
                self._add(event.time_s)
                self._start = None
        if last:
            return memory.frames * FRAME // HOP + 1
        if self._start is None:
            return max(0, memory.frames * FRAME // HOP - self.padding - 1)  # speech may begin now, and reaches back
        sure = (memory.frames if memory.release is None else memory.release) * self._frame_s
        self._start = self._add(max(self._start, sure))
        return _frame(self._start)

    def _add(self, end: float) -> float:
        assert self._start is not None
        self._speech.append((_frame(self._start), _frame(end)))
        return end


def _frame(time_s: float) -> int:
    return round(time_s * 16_000 / HOP)
