"""Estimators written once, run whole or chunk by chunk.

An estimator's layers look at other frames in two ways only, causal convolution and chunk attention. It asks a `View`
for both, and the view either has all frames at hand or takes those before from a cache.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, Protocol

import torch
from torch import Tensor, nn

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.state import MOST, State, check_range
from loquent.speech.nn.streaming import Chunk
from loquent.tts.flow.attention import ChunkAttention
from loquent.tts.flow.masks import ChunkMask


class View(Protocol):
    """How the frames at hand look at others. Both take and give (B, T, C)."""

    def convolve(self, conv: Conv1d, x: Tensor) -> Tensor:
        """A causal convolution of stride 1."""

    def attend(self, attention: ChunkAttention, x: Tensor) -> Tensor:
        """Attention under the mask."""


@dataclass(frozen=True)
class Whole:
    """All frames of the stream are at hand; ``seen`` (B or 1, T, T) bool is None where all see all."""

    seen: Tensor | None

    def convolve(self, conv: Conv1d, x: Tensor) -> Tensor:
        """See `View`."""
        return conv(x)

    def attend(self, attention: ChunkAttention, x: Tensor) -> Tensor:
        """See `View`."""
        return attention(x, self.seen)


@dataclass(frozen=True)
class Continued:
    """The frames at hand continue streams; each layer's cache is the next of ``parts``."""

    chunk: Chunk
    rows: Tensor
    position: Tensor
    mask: ChunkMask
    parts: Iterator[Any]

    def convolve(self, conv: Conv1d, x: Tensor) -> Tensor:
        """See `View`."""
        return conv.step(self.chunk.with_data(x), next(self.parts), self.rows).data

    def attend(self, attention: ChunkAttention, x: Tensor) -> Tensor:
        """See `View`."""
        return attention.step(self.chunk.with_data(x), next(self.parts), self.rows, self.position, self.mask)


@dataclass
class EstimatorState(State):
    """Caches of the layers, in the order of their registration, and how many frames have come."""

    parts: tuple[State, ...]
    position: Tensor  # (S,) int64

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("position", self.position, 0, MOST)


class Estimator(nn.Module):
    """Base of the networks that say where the flow goes: M bins of a frame and C conditions to M bins.

    A subclass defines `moment` and `estimate`. Its convolutions and attentions are registered in order of use.

    bins: M. conditions: C; all zero is the unconditional that guidance leads away from.
    """

    bins: int
    conditions: int

    def moment(self, t: Tensor) -> Tensor:
        """All that depends on the time alone, of every layer: (N,) in 0 … 1 to (N, K).

        The solver asks once for all of its times: in a large network it takes many weights.
        """
        raise NotImplementedError

    def estimate(self, x: Tensor, moment: Tensor, view: View) -> Tensor:
        """What the flow does in x (B, T, M + C) at a moment, (B, K) or (1, K) for all rows: (B, T, M)."""
        raise NotImplementedError

    def forward(self, x: Tensor, condition: Tensor, t: Tensor, seen: Tensor | None) -> Tensor:
        """Whole streams.

        Args:
            x: (B, T, M) on the path. condition: (B, T, C). t: (B,) its time.
            seen: (B or 1, T, T) bool, which frames see each other; None where all do. See `masks.seen`.
        """
        return self.estimate(torch.cat([x, condition], dim=2), self.moment(t), Whole(seen))

    def initial_state(self, slots: int, mask: ChunkMask) -> EstimatorState:
        """Caches of streams that have seen nothing, at one time t of the flow; the mask's left context is bounded."""
        parts: list[State] = []
        for layer in self.modules():
            if isinstance(layer, Conv1d):
                parts.append(layer.initial_state(slots))
            elif isinstance(layer, ChunkAttention):
                parts.append(layer.initial_state(slots, mask))
        device = next(self.parameters()).device
        return EstimatorState(tuple(parts), torch.zeros(slots, dtype=torch.long, device=device))

    def step(self, x: Chunk, moment: Tensor, state: EstimatorState, rows: Tensor, mask: ChunkMask) -> Tensor:
        """Frames that continue streams.

        Args:
            x: (B, T, M + C) in whole chunks of the mask, but for the end of a stream; T is its longest row's.
            moment: (1, K), the same at every step of this state.

        Returns:
            (B, T, M), what `forward` gives there.
        """
        position = state.position[rows]
        y = self.estimate(x.data, moment, Continued(x, rows, position, mask, iter(state.parts)))
        state.position[rows] = position + x.length
        return y
