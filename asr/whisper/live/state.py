"""The pool of streams of live Whisper, and a step of some of them under way."""

from __future__ import annotations

from dataclasses import dataclass
from typing import NamedTuple

from torch import Tensor

from loquent.asr.whisper.live.memo import WhisperMemo
from loquent.speech.audio.vad import VadState
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, WindowState


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
    last: list[bool]  # whether the input of each ends with this step
    mel: Chunk  # (B, T, F) log-mel frames
    speech: Chunk  # (B, N) probabilities of speech
