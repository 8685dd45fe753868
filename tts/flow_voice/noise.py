"""Noise of the flow from a stream's seed and a frame's number."""

from __future__ import annotations

import torch
from torch import Tensor

from loquent.kernels.counter_noise import counter_noise
from loquent.speech.nn.state import MOST
from loquent.tts.flow.noise import Noise

APART = 1 << 43  # the vocoder draws from the same seeds


class CounterNoise(Noise):
    """Counter-based: each value follows from seed, frame and bin alone."""

    def forward(self, seeds: Tensor, first: Tensor, frames: int, bins: int) -> Tensor:
        """See `Noise`; of a seed, the lowest 44 bits count."""
        frame = first[:, None] + torch.arange(frames, device=first.device)
        return counter_noise(seeds % MOST ^ APART, frame, bins)
