"""Which frames a frame sees: chunk-causal masks, one network for every latency (CosyVoice 2, arXiv 2412.10117)."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor


@dataclass(frozen=True)
class ChunkMask:
    """Frame i sees frame j if ⌊i / c⌋ · c - left ≤ j < (⌊i / c⌋ + 1) · c, with c = ``chunk``.

    chunk: frames that see each other; 1 is causal; None is full: the stream is one chunk.
    left:  frames before its chunk that a frame sees; None for all of them.
    """

    chunk: int | None
    left: int | None = None

    def __post_init__(self) -> None:
        if self.chunk is not None and self.chunk < 1:
            raise ValueError(f"a chunk has at least 1 frame, got chunk={self.chunk}; None is the full mask")
        if self.left is not None and self.left < 0:
            raise ValueError(f"left={self.left} frames of context; give 0 for none, None for all")

    @classmethod
    def of_chunks(cls, chunk: int, left_chunks: int | None) -> ChunkMask:
        """The mask whose left context is a number of chunks."""
        return cls(chunk, None if left_chunks is None else left_chunks * chunk)

    def times(self, factor: int) -> ChunkMask:
        """The same mask for steps of which ``factor`` make one of these."""
        return ChunkMask(self.chunk and factor * self.chunk, None if self.left is None else factor * self.left)

    def seen(self, frames: int, device: torch.device | None = None) -> Tensor:
        """(1, T, T) bool: whether the frame of the row sees that of the column."""
        return seen([self], torch.tensor([frames], device=device), frames)


FULL = ChunkMask(None)


def seen(masks: Sequence[ChunkMask], lengths: Tensor, frames: int) -> Tensor:
    """What the frames of a batch see, each row under a mask of its own.

    Args:
        masks: of each row; B of them, or 1 for all rows.
        lengths: (B,) int64 frames of each row; nobody sees what lies beyond.
        frames: T, length of the result.

    Returns:
        (B, T, T) bool; padding sees itself, so that no frame sees nothing.
    """
    device = lengths.device
    frame = torch.arange(frames, device=device)
    size = torch.tensor([mask.chunk or frames for mask in masks], device=device)[:, None].clamp(min=1)
    left = torch.tensor([frames if mask.left is None else mask.left for mask in masks], device=device)[:, None]
    start = (frame - frame % size)[:, :, None]
    visible = (frame < start + size[:, :, None]) & (frame >= start - left[:, :, None])
    return visible & (frame < lengths[:, None])[:, None] | torch.eye(frames, dtype=torch.bool, device=device)


@dataclass(frozen=True)
class MaskMixture:
    """Masks that training draws from, so that one network learns them all.

    weights: how often each is drawn, relative to the others; equally often by default.
    """

    masks: tuple[ChunkMask, ...]
    weights: tuple[float, ...] | None = None

    def __post_init__(self) -> None:
        if not self.masks:
            raise ValueError("a mixture needs at least one mask")
        if self.weights is not None and len(self.weights) != len(self.masks):
            raise ValueError(f"{len(self.masks)} masks need as many weights, got {len(self.weights)}")

    def sample(self, batch: int, generator: torch.Generator | None = None) -> list[ChunkMask]:
        """A mask for each of ``batch`` rows; ``generator`` is one of the CPU."""
        weights = torch.tensor(self.weights or [1.0] * len(self.masks))
        drawn: list[int] = torch.multinomial(weights, batch, replacement=True, generator=generator).tolist()
        return [self.masks[index] for index in drawn]
