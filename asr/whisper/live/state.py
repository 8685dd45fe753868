"""The pool of streams of live Whisper, and a step of some of them under way."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from loquent.asr.whisper.live.memo import WhisperMemo
from loquent.speech.audio.vad import VadState
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import WindowState
from loquent.speech.nn.transfer import Fetched


@dataclass
class StreamState(State):
    """Pool of streams: front end, the last 30 s of log-mel frames, and what the encoding keeps."""

    features: WindowState
    vad: VadState
    mel: Tensor  # (S, 3000, F), frame t in entry t mod 3000
    encoding: State


class WhisperStep(NamedTuple):
    """A step whose front end has been launched; B streams."""

    memos: list[WhisperMemo]
    state: StreamState
    rows: Tensor  # (B,)
    place: Sequence[int]  # of each stream in what the front end gave
    fetched: Fetched  # what `Listening` gave

    def heard(self) -> list[tuple[int, list[float], bool]]:
        """Of each stream, once it is there: new mel frames, probabilities of speech, whether its input ends here."""
        frames, probabilities, counts, last = (tensor.tolist() for tensor in self.fetched.wait())
        return [(frames[i], probabilities[i][: counts[i]], last[i]) for i in self.place]
