"""Streaming self-attention over a ring of cached keys and values."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.cached_attention import attention_mask, cached_attention
from loquent.speech.nn.positions import Rotary
from loquent.speech.nn.state import MOST, State, check_range
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk, as_rows


@dataclass
class RingState(State):
    """Keys and values that coming steps may still see, and how many steps have come."""

    k: Tensor  # (S, H, capacity, D)
    v: Tensor  # (S, H, capacity, D)
    position: Tensor  # (S,) int64
    longest: int = MOST  # steps that a stream may have

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("position", self.position, 0, self.longest)


class RingAttention(StreamingModule):
    """Multi-head self-attention: a step sees its own block, ``left`` steps before it and the first ``sinks`` ones.

    Steps must come in whole blocks but for the end of the stream: put `Blocks` in front of the stack when block > 1.

    Args:
        heads: number of heads; ``query``, ``key`` and ``value`` project (B, T, C) to (B, T, heads · D), ``out`` back.
        block: steps that see each other.
        left: steps before its block that a step sees; None for all.
        sinks: first steps of the stream that are always seen.
        capacity: steps that a stream remembers, ``left + sinks`` by default; with left=None it bounds the stream.
        rotary: positions of queries and keys; None where the input carries them.
    """

    def __init__(
        self,
        heads: int,
        query: nn.Module,
        key: nn.Module,
        value: nn.Module,
        out: nn.Module,
        *,
        block: int = 1,
        left: int | None = None,
        sinks: int = 0,
        capacity: int | None = None,
        rotary: Rotary | None = None,
    ) -> None:
        super().__init__()
        if capacity is None:
            if left is None:
                raise ValueError("with left=None every step is remembered: give the capacity, in steps")
            capacity = max(left, 1) + sinks
        elif left is not None and capacity < left + sinks:
            raise ValueError(f"capacity={capacity} steps cannot hold left={left} and sinks={sinks}")
        self.heads, self.block, self.left, self.sinks, self.capacity = heads, block, left, sinks, capacity
        self.query, self.key, self.value, self.out = query, key, value, out
        self.rotary = rotary

    def forward(self, x: Tensor) -> Tensor:
        """Attend within the whole input, (B, T, C), under the mask that `step` sees."""
        position = torch.arange(x.shape[1], device=x.device)
        q, k, v = (y.transpose(1, 2) for y in self._project(x, position))
        if self.block == 1 and (self.left is None or x.shape[1] <= self.left + 1):
            y = F.scaled_dot_product_attention(q, k, v, is_causal=True)
        elif self.left is None and self.block >= x.shape[1]:
            y = F.scaled_dot_product_attention(q, k, v)
        else:
            mask = attention_mask(position, position, self.block, self.left, self.sinks)
            y = F.scaled_dot_product_attention(q, k, v, mask)
        return self.out(y.transpose(1, 2).flatten(2))

    def initial_state(self, batch: int) -> RingState:
        """Empty rings."""
        weight = next(self.key.parameters())
        shape = batch, self.heads, self.capacity, weight.shape[0] // self.heads
        return RingState(
            torch.zeros(shape, device=weight.device, dtype=weight.dtype),
            torch.zeros(shape, device=weight.device, dtype=weight.dtype),
            torch.zeros(batch, device=weight.device, dtype=torch.long),
            self.capacity if self.left is None else MOST,
        )

    def step(self, x: Chunk | Tensor, state: RingState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Attend from the new steps to the past and to each other.

        Raises:
            ValueError: left is None and a stream outgrows the capacity (not checked in static mode, where it would
                stall the device: the caller bounds the stream).
        """
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        position = state.position[rows]
        after = position + chunk.length
        if self.left is None and not chunk.static and (after > self.capacity).any():
            raise ValueError(
                f"a stream has reached {int(after.max())} steps but left=None remembers only capacity={self.capacity}; "
                "end the segment earlier, or limit left"
            )
        steps = position[:, None] + torch.arange(chunk.data.shape[1], device=chunk.data.device)
        y = self._attend(*self._project(chunk.data, steps), state, rows, position, chunk.length)
        state.position[rows] = after
        return chunk.with_data(self.out(y.flatten(2)))

    def inputs_for(self, outputs: int) -> int:
        """Whole blocks."""
        return -(-outputs // self.block) * self.block

    def _project(self, x: Tensor, position: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        q, k, v = (project(x).unflatten(-1, (self.heads, -1)) for project in (self.query, self.key, self.value))
        if self.rotary is not None:
            q, k = self.rotary(q, position), self.rotary(k, position)
        return q, k, v

    def _attend(
        self, q: Tensor, k: Tensor, v: Tensor, state: RingState, rows: Tensor, position: Tensor, length: Tensor
    ) -> Tensor:
        return cached_attention(
            q, k, v, state.k, state.v, rows, position, length, block=self.block, left=self.left, sinks=self.sinks
        )
