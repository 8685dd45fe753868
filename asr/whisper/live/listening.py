"""The front end of live Whisper on the device: log-mel frames into the streams' rings, and probabilities of speech."""

from __future__ import annotations

from collections.abc import Sequence

import torch
from torch import Tensor

from loquent.asr.whisper.live.state import StreamState
from loquent.speech.audio.features import WhisperLogMel
from loquent.speech.audio.vad import SileroVad
from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched, staged
from loquent.speech.runtime.replay import Replay


class Listening:
    """Takes in a chunk of every stream at once; nothing waits.

    Args:
        chunk: mel frames of a step.

    Attributes:
        width: samples of the longest step of a live stream; of steps of this width a graph is kept.
    """

    def __init__(self, features: WhisperLogMel, vad: SileroVad, chunk: int) -> None:
        self.features, self.vad = features, vad
        first, two = (features.inputs_for(count * chunk + 1) for count in (1, 2))
        self.width = max(first, two - first)
        self._replay = Replay(self._run)

    def __call__(self, samples: Chunk, state: StreamState, rows: Tensor, frames: Sequence[int]) -> Fetched:
        """Launch the front end.

        Args:
            samples: (B, N).
            frames: that each stream has had; rows beyond them are padding.

        Returns:
            Of each row: how many mel frames are new, probabilities of speech (B, T), how many of these, and whether
            the stream ends here.
        """
        begin = staged([*frames, *[0] * (len(rows) - len(frames))], rows.device)
        run = self._replay if samples.data.shape[1] == self.width else self._run
        return Fetched(*run(samples, state, rows, begin), samples.last)

    def _run(self, samples: Chunk, state: StreamState, rows: Tensor, begin: Tensor) -> tuple[Tensor, ...]:
        mel = self.features.step(samples, state.features, rows)
        speech = self.vad.step(samples, state.vad, rows)
        entry = (begin[:, None] + torch.arange(mel.data.shape[1], device=rows.device)) % state.mel.shape[1]
        place = rows[:, None], entry
        state.mel[place] = torch.where(mel.mask[..., None], mel.data, state.mel[place])
        return mel.length, speech.data, speech.length
