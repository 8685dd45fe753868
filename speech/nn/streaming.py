"""Streaming modules: every model is a function of (chunk, state).

A module sees time in ragged batches (`Chunk`): each row brings its own number of new steps and may end its stream, so
streams in different phases of their lives share one batch of static shape. All windowed operations (convolutions, STFT
frames, resampling) rest on one piece of arithmetic, `slide`.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from fractions import Fraction
from typing import Any, Literal

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.state import State


@dataclass(frozen=True)
class Chunk:
    """A ragged batch of consecutive steps.

    data:   (B, T, ...) steps, left-aligned; what lies beyond a row's length is arbitrary.
    length: (B,) int64, valid steps of each row, 0 … T.
    last:   (B,) bool, whether the row's stream ends with this chunk.
    static: whether a step must not wait for the device: it never reads values on the host, and the shapes of its
            results follow from those of its inputs. By default true everywhere but on the CPU, where reading is free.
    """

    data: Tensor
    length: Tensor
    last: Tensor
    static: bool | None = None  # never None once the chunk is made

    def __post_init__(self) -> None:
        if self.static is None:
            object.__setattr__(self, "static", not self.data.is_cpu)

    @classmethod
    def of(cls, data: Tensor, last: bool = False) -> Chunk:
        """Chunk in which every row is full."""
        rows, device = data.shape[0], data.device
        return cls(
            data,
            torch.full((rows,), data.shape[1], dtype=torch.long, device=device),
            torch.full((rows,), last, dtype=torch.bool, device=device),
        )

    @property
    def mask(self) -> Tensor:
        """(B, T) bool: which steps are valid."""
        return torch.arange(self.data.shape[1], device=self.data.device) < self.length[:, None]

    def with_data(self, data: Tensor, length: Tensor | None = None, last: Tensor | None = None) -> Chunk:
        """What a step makes of this chunk: other values, and other lengths and ends where given."""
        return Chunk(data, self.length if length is None else length, self.last if last is None else last, self.static)

    def to(self, device: torch.device) -> Chunk:
        """The chunk on another device, static if that one asks for it; itself if it is there already."""
        if self.data.device == device:
            return self
        return Chunk(self.data.to(device), self.length.to(device), self.last.to(device))

    def room(self, count: Tensor, bound: int) -> int:
        """Steps that results of ``count`` (B,) steps, at most ``bound``, need: the bound itself in static mode."""
        return bound if self.static else int(count.max())

    def rows(self) -> Iterator[Tensor]:
        """Yield each row's valid steps, (length, ...)."""
        for row, length in zip(self.data, self.length.tolist(), strict=True):
            yield row[:length]


class StreamingModule(nn.Module):
    """A module that can be run whole (`forward`) or chunk by chunk (`step`), with the same result.

    Time is axis 1. A subclass defines `forward`, `initial_state`, `step` and `inputs_for`; the declared `stride` and
    `latency` follow from the last one.
    """

    def initial_state(self, batch: int) -> State:
        """State of ``batch`` streams that have seen nothing."""
        raise NotImplementedError

    def step(self, x: Chunk | Tensor, state: Any, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Advance streams by one chunk.

        Args:
            x: a `Chunk`, or a tensor (B, T, ...) in which every row is full.
            state: pool of slots, updated in place.
            rows: (B,) int64 slots of the pool that the rows of ``x`` belong to; all slots in order by default.
            last: for a tensor, whether every stream ends here.

        Returns:
            The outputs that have become final, possibly none for some rows.
        """
        raise NotImplementedError

    def inputs_for(self, outputs: int) -> int:
        """Number of input steps after which ``outputs`` output steps are final (in a stream that goes on)."""
        raise NotImplementedError

    @property
    def stride(self) -> Fraction:
        """Input steps per output step in the long run."""
        # A multiple of every number up to 16, of 25 and of 441 (44.1 kHz): whole blocks, whole up-sampling periods.
        period = 50_450_400
        return Fraction(self.inputs_for(2 * period) - self.inputs_for(period), period)

    @property
    def latency(self) -> int:
        """Look-ahead: the largest distance in input steps from output j (j · stride) to the last input it waits for."""
        stride = self.stride
        return max(self.inputs_for(j + 1) - 1 - int(j * stride) for j in range(512))


def as_chunk(x: Chunk | Tensor, last: bool = False) -> Chunk:
    """Accept a plain tensor where a `Chunk` is expected."""
    return x if isinstance(x, Chunk) else Chunk.of(x, last)


def as_rows(rows: Tensor | None, chunk: Chunk) -> Tensor:
    """Slots of a chunk's rows: 0 … B-1 unless given."""
    return torch.arange(chunk.data.shape[0], device=chunk.data.device) if rows is None else rows


@dataclass(frozen=True)
class Window:
    """A sliding window: output j sees inputs j · stride - left … j · stride - left + kernel - 1.

    ``left`` and ``right`` steps of padding are added before the stream's first and after its last step. ``reflect``
    mirrors the signal there instead of adding zeros: "left" as Whisper's STFT does once its tail is padded with
    silence, "both".
    """

    kernel: int
    stride: int = 1
    left: int = 0
    right: int = 0
    reflect: Literal["none", "left", "both"] = "none"

    @property
    def context(self) -> int:
        """Input steps a stream must remember."""
        return self.kernel - 1

    def outputs(self, inputs: Tensor, last: Tensor | bool) -> Tensor:
        """Outputs that are final after ``inputs`` steps, int64 elementwise."""
        available = inputs + self.left + last * self.right
        count = ((available - self.kernel).div(self.stride, rounding_mode="floor") + 1).clamp(min=0)
        if self.reflect != "none":  # step `left` is mirrored into the first window
            count = torch.where((inputs > self.left) | last, count, 0)
        return count

    def inputs_for(self, outputs: int) -> int:
        """Input steps after which ``outputs`` outputs are final."""
        if outputs == 0:
            return 0
        needed = max((outputs - 1) * self.stride - self.left + self.kernel, 1)
        return needed if self.reflect == "none" else max(needed, self.left + 1)

    def most_outputs(self, inputs: int) -> int:
        """The most outputs that become final with ``inputs`` steps, whatever came before and also at the end."""
        most = -(-(inputs + self.right) // self.stride)
        if self.reflect == "none":
            return most
        # The first outputs come together, once step `left` is there.
        return max(most, (2 * self.left + inputs + self.right - self.kernel) // self.stride + 1)


@dataclass
class WindowState(State):
    """The last ``kernel - 1`` inputs of each stream, right-aligned, and how many have come in all."""

    tail: Tensor  # (S, kernel - 1, ...)
    received: Tensor  # (S,) int64

    @classmethod
    def zeros(cls, window: Window, batch: int, *shape: int, like: Tensor) -> WindowState:
        """State for steps of the given shape, with the device and dtype of ``like``."""
        return cls(
            torch.zeros(batch, window.context, *shape, device=like.device, dtype=like.dtype),
            torch.zeros(batch, dtype=torch.long, device=like.device),
        )


def slide(window: Window, chunk: Chunk, state: WindowState, rows: Tensor) -> Chunk:
    """Hand each row the stretch of signal that its new windows cover.

    Returns a chunk whose ``data`` is (B, (M - 1) · stride + kernel, ...), so that an unpadded window operation over it
    yields M outputs per row, and whose ``length`` counts the *outputs* of each row (at most M).
    """
    data = chunk.data
    batch, steps = data.shape[:2]
    tail, before = state.tail[rows], state.received[rows]
    after = before + chunk.length
    first = window.outputs(before, False)
    count = window.outputs(after, chunk.last) - first

    most = chunk.room(count, window.most_outputs(steps))
    span = (most - 1) * window.stride + window.kernel if most else 0

    joined = torch.cat([tail, data], dim=1)
    position = (first * window.stride - window.left)[:, None] + torch.arange(span, device=data.device)  # in the stream
    if window.reflect != "none":
        position = position.abs()
    if window.reflect == "both":
        beyond = chunk.last[:, None] & (position >= after[:, None])
        position = torch.where(beyond, 2 * (after[:, None] - 1) - position, position)
    inside = (position >= 0) & (position < after[:, None])
    windows = take_steps(joined, (position - before[:, None] + window.context).clamp(0, joined.shape[1] - 1))
    if chunk.static or not inside.all():
        windows = windows.masked_fill(~inside.reshape(batch, span, *[1] * (data.ndim - 2)), 0)

    if window.context:
        recent = chunk.length[:, None] + torch.arange(window.context, device=data.device)
        state.tail[rows] = take_steps(joined, recent)
    state.received[rows] = after
    return chunk.with_data(windows, count)


def take_steps(x: Tensor, index: Tensor) -> Tensor:
    """Each row's steps of ``x`` (B, T, ...) at ``index`` (B, N): (B, N, ...)."""
    first = torch.arange(x.shape[0], device=x.device)[:, None] * x.shape[1]
    # Unlike `gather`, this copies whole steps.
    return x.flatten(0, 1).index_select(0, (first + index).flatten()).unflatten(0, index.shape)


def step_in_groups(module: StreamingModule, chunk: Chunk, state: State, rows: Tensor, size: int) -> Chunk:
    """`step` of a module, ``size`` rows at a time: the same result, in less memory."""
    if len(rows) <= size:
        return module.step(chunk, state, rows)
    parts = zip(*(part.split(size) for part in (chunk.data, chunk.length, chunk.last, rows)), strict=True)
    groups = [module.step(chunk.with_data(data, length, last), state, some) for data, length, last, some in parts]
    most = max(group.data.shape[1] for group in groups)
    data = [F.pad(group.data, [0, 0] * (group.data.ndim - 2) + [0, most - group.data.shape[1]]) for group in groups]
    return chunk.with_data(torch.cat(data), torch.cat([group.length for group in groups]))


def forward_in_pieces(module: StreamingModule, x: Tensor, piece: int = 2**19) -> Tensor:
    """`forward` of a module over samples, by way of `step`: (B, N) whole inputs to whole outputs.

    The memory needed is that of one piece, 2**19 samples (33 s at 16 kHz) unless given, however long the recording.
    """
    state, parts, pieces = module.initial_state(x.shape[0]), [], x.split(piece, dim=1)
    for index, part in enumerate(pieces):
        out = module.step(part, state, last=index == len(pieces) - 1)
        parts.append(out.data[:, : int(out.length[0])])  # data has surplus steps where shapes are static
    return torch.cat(parts, dim=1)


@dataclass
class ChainState(State):
    """States of the streaming modules of a `Chain`, in order."""

    parts: tuple[State, ...]


class Chain(StreamingModule):
    """Composition of streaming and pointwise modules; strides multiply and latencies add up."""

    def __init__(self, *modules: nn.Module) -> None:
        super().__init__()
        self.stages = nn.ModuleList(modules)

    def initial_state(self, batch: int) -> ChainState:
        """States of the stages that have one."""
        return ChainState(tuple(m.initial_state(batch) for m in self.stages if isinstance(m, StreamingModule)))

    def forward(self, x: Tensor) -> Tensor:
        """Apply every stage to the whole input (B, T, ...)."""
        for module in self.stages:
            x = module(x)
        return x

    def step(self, x: Chunk | Tensor, state: ChainState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Apply every stage to a chunk."""
        chunk, parts = as_chunk(x, last), iter(state.parts)
        for module in self.stages:
            if isinstance(module, StreamingModule):
                chunk = module.step(chunk, next(parts), rows)
            else:
                chunk = chunk.with_data(module(chunk.data))
        return chunk

    def inputs_for(self, outputs: int) -> int:
        """Fold the stages from the last to the first."""
        for module in reversed(self.stages):
            if isinstance(module, StreamingModule):
                outputs = module.inputs_for(outputs)
        return outputs


class Blocks(StreamingModule):
    """Hold steps back until a whole block of ``size`` has come; the last block of a stream may be short.

    Put in front of block-causal attention it makes any packet size legal: a block is computed once, when it is
    complete.
    """

    like: Tensor  # device and dtype

    def __init__(self, size: int, *shape: int) -> None:
        super().__init__()
        if size < 1:
            raise ValueError(f"block size must be at least 1 step, got {size}")
        self.size, self.shape = size, shape
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> WindowState:
        """Room for ``size - 1`` waiting steps."""
        return WindowState.zeros(Window(self.size), batch, *self.shape, like=self.like)

    def forward(self, x: Tensor) -> Tensor:
        """Identity: a whole input has all of its blocks."""
        return x

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Return the waiting steps of every block that this chunk completes."""
        chunk, complete = self.step_ahead(x, state, rows, last)
        return chunk.with_data(chunk.data[:, : chunk.room(complete, chunk.data.shape[1])], complete)

    def step_ahead(
        self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False
    ) -> tuple[Chunk, Tensor]:
        """Return all waiting steps, those of the incomplete block too, which go on waiting; and how many of each row's
        are of complete blocks, (B,) int64."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        data, device = chunk.data, chunk.data.device
        keep = self.size - 1
        before = state.received[rows]
        after = before + chunk.length
        waiting = before % self.size
        total = waiting + chunk.length
        complete = torch.where(chunk.last, total, total - after % self.size)

        joined = torch.cat([state.tail[rows], data], dim=1)

        def pick(start: Tensor, steps: int) -> Tensor:
            index = start[:, None] + torch.arange(steps, device=device)
            return take_steps(joined, index.clamp(max=joined.shape[1] - 1))

        out = pick(keep - waiting, chunk.room(total, joined.shape[1]))
        if keep:
            state.tail[rows] = pick(chunk.length, keep)
        state.received[rows] = after
        return chunk.with_data(out, total), complete

    def inputs_for(self, outputs: int) -> int:
        """Whole blocks."""
        return -(-outputs // self.size) * self.size
