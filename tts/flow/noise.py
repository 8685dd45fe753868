"""Where the flow begins: noise that is a function of the frame's number, however a stream is cut."""

from __future__ import annotations

import torch
from torch import Tensor, nn

from loquent.kernels.counter_noise import counter_noise


class Noise(nn.Module):
    """Standard normal noise of any frame of any stream."""

    def forward(self, seeds: Tensor, first: Tensor, frames: int, bins: int) -> Tensor:
        """Noise of the frames first[b] … first[b] + frames - 1 of each row.

        Args:
            seeds: (B,) int64 of each row's stream. first: (B,) int64.

        Returns:
            (B, frames, bins) float32.
        """
        raise NotImplementedError


class CounterNoise(Noise):
    """Noise of a seed and the number of a frame: each stream has its own, however long it is."""

    def forward(self, seeds: Tensor, first: Tensor, frames: int, bins: int) -> Tensor:
        """See `Noise`."""
        return counter_noise(seeds, first[:, None] + torch.arange(frames, device=first.device), bins)


class NoiseTable(Noise):
    """One table for every stream, whatever its seed, repeated where it ends: CosyVoice 2 and 3 have such a one.

    Args:
        bins, frames: size of the table.
        seed: of torch's generator; 0 in CosyVoice.
    """

    table: Tensor  # (frames, bins)

    def __init__(self, bins: int = 80, frames: int = 15_000, seed: int = 0) -> None:
        super().__init__()
        table = torch.randn(1, bins, frames, generator=torch.Generator().manual_seed(seed))
        self.register_buffer("table", table[0].T.contiguous(), persistent=False)

    def forward(self, seeds: Tensor, first: Tensor, frames: int, bins: int) -> Tensor:
        """See `Noise`; the seeds are not used."""
        if bins != self.table.shape[1]:
            raise ValueError(f"the table has {self.table.shape[1]} bins, the flow {bins}")
        frame = first[:, None] + torch.arange(frames, device=first.device)
        return self.table[frame % self.table.shape[0]]
