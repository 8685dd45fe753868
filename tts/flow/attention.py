"""Self-attention under a chunk mask: whole, or chunk by chunk over a ring of cached keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.cached_attention import cached_attention
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.positions import Rotary
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk
from loquent.tts.flow.masks import ChunkMask


@dataclass
class AttentionCache(State):
    """Keys and values that coming frames may still see; where the stream is, whoever calls the layers knows."""

    k: Tensor  # (S, H, left, D)
    v: Tensor  # (S, H, left, D)


class ChunkAttention(nn.Module):
    """Multi-head self-attention; which frames see each other is said by each call.

    Args:
        channels: of a frame. heads: number of heads. head_size: channels of each; channels / heads by default.
        bias: whether queries, keys and values have one (the output always does).
        rotary: positions of queries and keys. rotated: heads that have them, the first ones; all by default.
    """

    def __init__(
        self,
        channels: int,
        heads: int,
        head_size: int | None = None,
        *,
        bias: bool = True,
        rotary: Rotary | None = None,
        rotated: int | None = None,
    ) -> None:
        super().__init__()
        if head_size is None and channels % heads:
            raise ValueError(f"heads={heads} must divide channels={channels}, or give head_size")
        self.heads, self.head_size = heads, head_size or channels // heads
        inner = heads * self.head_size
        self.qkv = Linear(channels, 3 * inner, bias)
        self.out = Linear(inner, channels)
        self.rotary, self.rotated = rotary, heads if rotated is None else rotated

    def forward(self, x: Tensor, seen: Tensor | None) -> Tensor:
        """Attend within the whole (B, T, C); ``seen`` is (B or 1, T, T) bool, or None where all see all."""
        q, k, v = self._project(x, torch.arange(x.shape[1], device=x.device))
        y = F.scaled_dot_product_attention(
            q.transpose(1, 2), k.transpose(1, 2), v.transpose(1, 2), None if seen is None else seen[:, None]
        )
        return self.out(y.transpose(1, 2).flatten(2))

    def initial_state(self, slots: int, mask: ChunkMask) -> AttentionCache:
        """Empty rings, for streams under ``mask``, whose left context has to be bounded."""
        shape = slots, self.heads, max(bounded(mask), 1), self.head_size
        return AttentionCache(self.qkv.weight.new_zeros(shape), self.qkv.weight.new_zeros(shape))

    def step(self, x: Chunk, cache: AttentionCache, rows: Tensor, position: Tensor, mask: ChunkMask) -> Tensor:
        """Attend from new frames, in whole chunks of the mask, to the past and to each other: (B, T, C).

        ``position`` (B,) counts the frames that came before.
        """
        steps = position[:, None] + torch.arange(x.data.shape[1], device=x.data.device)
        q, k, v = self._project(x.data, steps)
        y = cached_attention(
            *(q, k, v, cache.k, cache.v, rows, position, x.length), block=mask.chunk or 1, left=mask.left
        )
        return self.out(y.flatten(2))

    def _project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        qkv = self.qkv(x).unflatten(-1, (3, self.heads, self.head_size))
        q, k, v = qkv.unbind(2)
        if self.rotary is None:
            return q, k, v
        turned = self.rotary(qkv[:, :, :2, : self.rotated].flatten(2, 3), position).unflatten(2, (2, -1))
        if self.rotated < self.heads:
            turned = torch.cat([turned, qkv[:, :, :2, self.rotated :]], dim=3)
        return turned[:, :, 0], turned[:, :, 1], v


def bounded(mask: ChunkMask) -> int:
    """The left context that a stream under ``mask`` remembers, in frames.

    Raises:
        ValueError: it has no bound, or the stream is one chunk.
    """
    if mask.chunk is None or mask.left is None:
        raise ValueError(f"{mask} cannot be streamed: give a chunk and a left context, or run the whole input")
    return mask.left
