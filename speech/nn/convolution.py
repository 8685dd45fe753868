"""Streaming convolutions along time; weights have the layout of torch's modules, so checkpoints load unchanged."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.conv_step import depthwise_conv_step
from loquent.kernels.linear import linear
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide


class Conv1d(StreamingModule):
    """`torch.nn.Conv1d` over (B, T, C) with zeros before and after the stream.

    Output j sees inputs j · stride - left … j · stride - left + (kernel - 1) · dilation.

    Args:
        left: steps of zeros before the first input; (kernel - 1) · dilation - right by default: T stays at stride 1.
        right: steps of zeros after the last input. Each is a step of look-ahead; with none the convolution is causal.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        left: int | None = None,
        right: int = 0,
        dilation: int = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        super().__init__()
        if in_channels % groups or out_channels % groups:
            raise ValueError(f"groups={groups} must divide the channels, got {in_channels} in and {out_channels} out")
        span = (kernel - 1) * dilation
        self.window = Window(span + 1, stride, span - right if left is None else left, right)
        if self.window.left < 0 or right < 0:
            raise ValueError(f"padding must not be negative, got left={self.window.left}, right={right}")
        self.dilation, self.groups = dilation, groups
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        _initialise(self.weight, self.bias, in_channels // groups * kernel)
        depthwise = groups == in_channels == out_channels
        self.fused = depthwise and stride == dilation == 1 and self.window.left == span and right == 0

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) to (B, (T + left + right - (kernel - 1) · dilation - 1) // stride + 1, out)."""
        return self._convolve(F.pad(x, (0, 0, self.window.left, self.window.right)))

    def initial_state(self, batch: int) -> WindowState:
        """The inputs that coming outputs still see, (kernel - 1) · dilation of each stream."""
        return WindowState.zeros(self.window, batch, self.weight.shape[1] * self.groups, like=self.weight)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Outputs whose inputs have all come; those that see the padding at the end come with ``last``."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        if self.fused:  # a tail of zeros is all that the start of a stream is: no need to count
            weight = self.weight.squeeze(1)
            return chunk.with_data(depthwise_conv_step(chunk.data, weight, self.bias, state.tail, rows, chunk.length))
        windows = slide(self.window, chunk, state, rows)
        if windows.data.shape[1] == 0:
            return windows.with_data(windows.data.new_zeros(windows.data.shape[0], 0, self.weight.shape[0]))
        if self.groups == self.dilation == 1 and not windows.static:
            # For the few steps of a chunk a CPU is up to three times as fast in a matrix product as in a convolution.
            unfolded = windows.data.unfold(1, self.window.kernel, self.window.stride).flatten(2)
            return windows.with_data(linear(unfolded, self.weight.flatten(1), self.bias))
        return windows.with_data(self._convolve(windows.data))

    def inputs_for(self, outputs: int) -> int:
        """Up to the last input of the last window."""
        return self.window.inputs_for(outputs)

    def _convolve(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return F.conv1d(x, self.weight, self.bias, self.window.stride, 0, self.dilation, self.groups).transpose(1, 2)


class Conv2d(StreamingModule):
    """`torch.nn.Conv2d` with a square kernel over (B, T, F, C): streaming in time, padded in time and frequency.

    Args:
        left, right: zeros before and after the stream, and below and above the bins; kernel - 1 and 0 by default. Each
            on the right in time is a step of look-ahead.
    """

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel: int,
        stride: int = 1,
        *,
        left: int | None = None,
        right: int = 0,
        groups: int = 1,
        bins: int,
    ) -> None:
        super().__init__()
        self.window = Window(kernel, stride, kernel - 1 if left is None else left, right)
        self.groups, self.bins = groups, bins
        self.weight = nn.Parameter(torch.empty(out_channels, in_channels // groups, kernel, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        _initialise(self.weight, self.bias, in_channels // groups * kernel**2)

    @property
    def out_bins(self) -> int:
        """Bins of the output."""
        return (self.bins + self.window.left + self.window.right - self.window.kernel) // self.window.stride + 1

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, F, in) to (B, T', F', out)."""
        return self._convolve(F.pad(x, (0, 0, 0, 0, self.window.left, self.window.right)))

    def initial_state(self, batch: int) -> WindowState:
        """The last kernel - 1 inputs of each stream."""
        channels = self.weight.shape[1] * self.groups
        return WindowState.zeros(self.window, batch, self.bins, channels, like=self.weight)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Outputs whose inputs have all come."""
        chunk = as_chunk(x, last)
        windows = slide(self.window, chunk, state, as_rows(rows, chunk))
        if windows.data.shape[1] == 0:
            shape = windows.data.shape[0], 0, self.out_bins, self.weight.shape[0]
            return windows.with_data(windows.data.new_zeros(shape))
        return windows.with_data(self._convolve(windows.data))

    def inputs_for(self, outputs: int) -> int:
        """Up to the last input of the last window."""
        return self.window.inputs_for(outputs)

    def _convolve(self, x: Tensor) -> Tensor:
        # (B, T, F, C) is torch's channels-last layout: nothing is copied.
        x = F.pad(x, (0, 0, self.window.left, self.window.right)).permute(0, 3, 1, 2)
        return F.conv2d(x, self.weight, self.bias, self.window.stride, 0, 1, self.groups).permute(0, 2, 3, 1)


@dataclass
class OverlapState(State):
    """What the inputs so far add to the outputs that are not final yet."""

    overlap: Tensor  # (S, kernel - stride, out)


class ConvTranspose1d(StreamingModule):
    """`torch.nn.ConvTranspose1d` over (B, T, C) without its last kernel - stride outputs: T inputs give T · stride.

    Input i reaches outputs i · stride … i · stride + kernel - 1, so it is causal: output o waits for input o // stride.
    """

    def __init__(
        self, in_channels: int, out_channels: int, kernel: int, stride: int, *, groups: int = 1, bias: bool = True
    ) -> None:
        super().__init__()
        if kernel < stride:
            raise ValueError(f"kernel={kernel} is shorter than stride={stride}: some outputs would see no input")
        self.kernel, self.upsampling, self.groups = kernel, stride, groups
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels // groups, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels)) if bias else None
        _initialise(self.weight, self.bias, out_channels // groups * kernel)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) to (B, T · stride, out)."""
        y = self._spread(x)[:, : x.shape[1] * self.upsampling]
        return y if self.bias is None else y + self.bias

    def initial_state(self, batch: int) -> OverlapState:
        """Silence so far."""
        shape = batch, self.kernel - self.upsampling, self.weight.shape[1] * self.groups
        return OverlapState(torch.zeros(shape, device=self.weight.device, dtype=self.weight.dtype))

    def step(self, x: Chunk | Tensor, state: OverlapState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """``stride`` outputs for every input."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        batch, steps = chunk.data.shape[:2]
        if steps == 0:
            return chunk.with_data(chunk.data.new_zeros(batch, 0, self.weight.shape[1] * self.groups))
        y = self._spread(torch.where(chunk.mask[:, :, None], chunk.data, 0))
        pending = self.kernel - self.upsampling
        y = torch.cat([y[:, :pending] + state.overlap[rows], y[:, pending:]], dim=1)
        end = chunk.length * self.upsampling
        keep = (end[:, None] + torch.arange(pending, device=y.device))[:, :, None].expand(-1, -1, y.shape[2])
        state.overlap[rows] = y.detach().gather(1, keep)
        y = y[:, : steps * self.upsampling]
        return chunk.with_data(y if self.bias is None else y + self.bias, end)

    def inputs_for(self, outputs: int) -> int:
        """The input that starts after output ``outputs - 1`` cannot reach it."""
        return -(-outputs // self.upsampling)

    def _spread(self, x: Tensor) -> Tensor:
        x = x.transpose(1, 2)
        return F.conv_transpose1d(x, self.weight, None, self.upsampling, groups=self.groups).transpose(1, 2)


def _initialise(weight: Tensor, bias: Tensor | None, fan_in: int) -> None:
    bound = 1 / math.sqrt(fan_in)
    nn.init.uniform_(weight, -bound, bound)
    if bias is not None:
        nn.init.uniform_(bias, -bound, bound)
