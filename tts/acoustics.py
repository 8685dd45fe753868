"""What a voice is to the runtime: acoustics of one word at a time, and a renderer from frames to samples."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor

from loquent.speech.nn.streaming import StreamingModule


@dataclass(frozen=True)
class PhoneWindow:
    """A word to be spoken, and what stands around it.

    phones:  of the whole window, ids of the voice's alphabet, without padding at its ends.
    begin, end: those to be spoken, begin … end - 1.
    opens, closes: whether the utterance begins with the window's first phone, and ends with its last one.
    speed:   factor of tempo; 2 is twice as fast.
    speaker: number of the speaker, or a mixture of them: weights that add up to 1.
    """

    phones: Sequence[int]
    begin: int
    end: int
    opens: bool
    closes: bool
    speed: float = 1.0
    speaker: int | Mapping[int, float] = 0


@dataclass(frozen=True)
class WordAcoustics:
    """How a word is to sound. Where the utterance begins or ends with it, its silence there is a phone more.

    phones:    (P, C) features of each phone.
    durations: (P,) int64 frames of each phone, at least 1.
    curves:    (T, D) of each of its frames, T = Σ durations: pitch, energy.
    """

    phones: Tensor
    durations: Tensor
    curves: Tensor


class Renderer(StreamingModule):
    """Frames to samples: (B, T, C + D) to (B, T · hop_length), the phone's features beside the curves of each frame.

    An utterance is one stream of the module: nothing of the one before it is heard in it. What is random is a function
    of the stream's seed and of the frame's number from its start, wherever chunks and utterances are cut.
    """

    def seek(self, state: Any, rows: Tensor, seeds: Tensor, frames: Tensor) -> None:
        """Say where slots that were reset are to go on.

        Args:
            state: the pool, changed in place.
            rows: (N,) int64 slots.
            seeds: (N,) int64 of their noise.
            frames: (N,) int64 number of the stream's next frame.
        """
        raise NotImplementedError


class VoiceModel(Protocol):
    """A voice.

    sample_rate: in Hz. hop_length: samples of a frame.
    phone_size, curve_size: C and D of `WordAcoustics`.
    alphabet:    id of each phone that a front end may ask for; others are left out.
    speakers:    names; the first is the default.
    fingerprint: of weights and settings.
    """

    sample_rate: int
    hop_length: int
    phone_size: int
    curve_size: int
    alphabet: Mapping[str, int]
    speakers: tuple[str, ...]
    fingerprint: str
    renderer: Renderer

    def acoustics(self, windows: Sequence[PhoneWindow]) -> list[WordAcoustics]:
        """How the words of some windows are to sound; each result depends on its own window alone, bit for bit."""
