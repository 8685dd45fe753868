"""Streams that part and meet again: a branch with less look-ahead waits for the other."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.speech.nn.state import State, check_range
from loquent.speech.nn.streaming import (
    Chunk,
    StreamingModule,
    Window,
    WindowState,
    as_chunk,
    as_rows,
    slide,
    take_steps,
)


class Delay(StreamingModule):
    """Steps (B, T, C) unchanged, each ``steps`` steps late; those held back come when the stream ends.

    It stands beside a module with as much look-ahead, so that both give the same steps at the same time (Caillon and
    Esling, "Streamable Neural Audio Synthesis With Non-Causal Convolutions", 2022, arXiv 2204.07064).
    """

    like: Tensor  # device and dtype

    def __init__(self, steps: int, channels: int) -> None:
        super().__init__()
        self.window, self.channels = Window(steps + 1, right=steps), channels
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> WindowState:
        """Nothing held back."""
        return WindowState.zeros(self.window, batch, self.channels, like=self.like)

    def forward(self, x: Tensor) -> Tensor:
        """Identity."""
        return x

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """The steps that have been held back long enough."""
        chunk = as_chunk(x, last)
        if self.window.right == 0:
            return chunk.with_data(chunk.data[:, : chunk.room(chunk.length, chunk.data.shape[1])])
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        return stretch.with_data(stretch.data[:, : max(stretch.data.shape[1] - self.window.right, 0)])

    def inputs_for(self, outputs: int) -> int:
        """Those that are held back, too."""
        return self.window.inputs_for(outputs)


@dataclass
class QueueState(State):
    """Steps of one branch that wait for the other, right-aligned."""

    waiting: Tensor  # (S, capacity, C)
    held: Tensor  # (S,) int64, how many wait

    def check(self) -> None:
        """See `State.check`."""
        super().check()
        check_range("held", self.held, 0, self.waiting.shape[1])


@dataclass
class MeetingState(State):
    """What either branch has more than the other."""

    first: QueueState
    second: QueueState


class Meeting(nn.Module):
    """Adds two branches of one stream whose steps come at different times, but in all are equally many.

    Args:
        first, second: how many inputs of what they have in common each branch needs for some steps, as `inputs_for`.
        channels: of a step.
    """

    like: Tensor  # device and dtype

    def __init__(self, first: Callable[[int], int], second: Callable[[int], int], channels: int) -> None:
        super().__init__()
        counts = [(_steps_after(first, n), _steps_after(second, n)) for n in range(HORIZON)]
        self.capacities = max(a - b for a, b in counts), max(b - a for a, b in counts)
        self.channels = channels
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> MeetingState:
        """Nothing waits."""
        first, second = (
            QueueState(
                torch.zeros(batch, capacity, self.channels, device=self.like.device, dtype=self.like.dtype),
                torch.zeros(batch, dtype=torch.long, device=self.like.device),
            )
            for capacity in self.capacities
        )
        return MeetingState(first, second)

    def step(self, first: Chunk, second: Chunk, state: MeetingState, rows: Tensor) -> Chunk:
        """Sums of the steps that both have brought."""
        parts = ((first, state.first), (second, state.second))
        available = [queue.held[rows] + chunk.length for chunk, queue in parts]
        count = torch.minimum(*available)
        most = first.room(count, min(queue.waiting.shape[1] + chunk.data.shape[1] for chunk, queue in parts))
        total = None
        for (chunk, queue), there in zip(parts, available, strict=True):
            capacity, device = queue.waiting.shape[1], count.device
            joined = torch.cat([queue.waiting[rows], chunk.data], dim=1)
            begin = (capacity - queue.held[rows])[:, None] + torch.arange(most, device=device)
            steps = take_steps(joined, begin.clamp(max=max(joined.shape[1] - 1, 0)))
            total = steps if total is None else total + steps
            queue.waiting[rows] = take_steps(joined, chunk.length[:, None] + torch.arange(capacity, device=device))
            queue.held[rows] = there - count
        assert total is not None
        return first.with_data(total, count)


HORIZON = 96  # inputs after which branches lead by no more than they have before


def _steps_after(inputs_for: Callable[[int], int], inputs: int) -> int:
    """The most steps that a branch gives after some inputs."""
    low, high = 0, 1
    while inputs_for(high) <= inputs:
        low, high = high, 2 * high
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if inputs_for(middle) <= inputs else (low, middle)
    return low
