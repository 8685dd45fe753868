"""Residual blocks of dilated convolutions with periodic activations, alone and side by side."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, WindowState, as_chunk, as_rows
from loquent.tts.vocoder.branches import Delay

TINY = 1e-9


class Snake(nn.Module):
    """x + sin²(α x) / α with an α for each channel (arXiv 2006.08195)."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.alpha = nn.Parameter(torch.ones(channels))

    def forward(self, x: Tensor) -> Tensor:
        """(..., C) to (..., C)."""
        return x + (x * self.alpha).sin().square() / (self.alpha + TINY)


@dataclass
class ResidualState(State):
    """Caches of the two convolutions of each dilation, and of their inputs that wait to be added."""

    first: tuple[WindowState, ...]
    second: tuple[WindowState, ...]
    past: tuple[WindowState, ...]


class SnakeBlock(StreamingModule):
    """For each dilation x ← x + conv(snake(conv_dilated(snake(x)))), (B, T, C) to (B, T, C).

    The residual block of HiFi-GAN (arXiv 2010.05646) with the activations of BigVGAN; parameters have the names of
    CosyVoice's `ResBlock`.

    Args:
        causal: whether convolutions see the past only, or half of their kernels ahead.
    """

    def __init__(self, channels: int, kernel: int, dilations: Sequence[int], *, causal: bool) -> None:
        super().__init__()
        right = [0 if causal else (kernel - 1) * dilation // 2 for dilation in dilations]
        after = 0 if causal else (kernel - 1) // 2
        self.convs1 = nn.ModuleList(
            Conv1d(channels, channels, kernel, dilation=dilation, right=ahead)
            for dilation, ahead in zip(dilations, right, strict=True)
        )
        self.convs2 = nn.ModuleList(Conv1d(channels, channels, kernel, right=after) for _ in dilations)
        self.activations1 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.activations2 = nn.ModuleList(Snake(channels) for _ in dilations)
        self.delays = nn.ModuleList(Delay(ahead + after, channels) for ahead in right)
        self.lookahead = sum(right) + after * len(dilations)

    def forward(self, x: Tensor) -> Tensor:
        """Whole streams."""
        for conv1, conv2, snake1, snake2, _ in self._stages:
            x = x + conv2(snake2(conv1(snake1(x))))
        return x

    def initial_state(self, batch: int) -> ResidualState:
        """Nothing before the stream."""
        first, second, past = (
            tuple(module.initial_state(batch) for module in cast("list[Conv1d]", list(modules)))
            for modules in (self.convs1, self.convs2, self.delays)
        )
        return ResidualState(first, second, past)

    def step(self, x: Chunk | Tensor, state: ResidualState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Steps whose look-ahead has come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        caches = zip(state.first, state.second, state.past, strict=True)
        for (conv1, conv2, snake1, snake2, delay), (first, second, past) in zip(self._stages, caches, strict=True):
            y = conv1.step(chunk.with_data(snake1(chunk.data)), first, rows)
            y = conv2.step(y.with_data(snake2(y.data)), second, rows)
            chunk = y.with_data(delay.step(chunk, past, rows).data + y.data)
        return chunk

    def inputs_for(self, outputs: int) -> int:
        """All look-aheads further."""
        return outputs + self.lookahead if outputs else 0

    @property
    def _stages(self) -> list[tuple[Conv1d, Conv1d, Snake, Snake, Delay]]:
        modules = self.convs1, self.convs2, self.activations1, self.activations2, self.delays
        return cast("list[tuple[Conv1d, Conv1d, Snake, Snake, Delay]]", list(zip(*modules, strict=True)))


@dataclass
class MeanState(State):
    """Caches of blocks, and what the quicker ones have ready."""

    blocks: tuple[ResidualState, ...]
    delays: tuple[WindowState, ...]


class MeanOfBlocks(StreamingModule):
    """The mean of what some blocks make of the same steps; those with less look-ahead wait for the one with most.

    Args:
        blocks: registered by whoever calls this; here they have no names.
    """

    def __init__(self, blocks: Sequence[SnakeBlock], channels: int) -> None:
        super().__init__()
        self.lookahead = max(block.lookahead for block in blocks)
        self.blocks = tuple(blocks)  # a tuple of modules is not registered
        self.delays = nn.ModuleList(Delay(self.lookahead - block.lookahead, channels) for block in blocks)

    def forward(self, x: Tensor) -> Tensor:
        """Whole streams."""
        return torch.stack([block(x) for block in self.blocks]).mean(0)

    def initial_state(self, batch: int) -> MeanState:
        """Nothing before the stream."""
        delays = cast("list[Delay]", list(self.delays))
        return MeanState(
            tuple(block.initial_state(batch) for block in self.blocks),
            tuple(delay.initial_state(batch) for delay in delays),
        )

    def step(self, x: Chunk | Tensor, state: MeanState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Steps whose look-ahead has come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        found = []
        for block, delay, cache, past in zip(self.blocks, self.delays, state.blocks, state.delays, strict=True):
            found.append(cast("Delay", delay).step(block.step(chunk, cache, rows), past, rows))
        return found[0].with_data(torch.stack([one.data for one in found]).mean(0))

    def inputs_for(self, outputs: int) -> int:
        """The longest look-ahead further."""
        return outputs + self.lookahead if outputs else 0
