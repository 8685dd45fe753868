"""More steps from few: transposed convolutions with padding on both sides, and convolutions over repeated steps."""

from __future__ import annotations

import math

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide


class PaddedConvTranspose1d(StreamingModule):
    """`torch.nn.ConvTranspose1d(padding=(kernel - stride) // 2)` over (B, T, C): T inputs give T · stride outputs.

    Output o sees inputs ⌈(o + p - kernel + 1) / stride⌉ … ⌊(o + p) / stride⌋ with the padding p; a block of ``stride``
    outputs comes when its last input has.

    Args:
        kernel: at least ``stride``, by an even number.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int) -> None:
        super().__init__()
        if kernel < stride or (kernel - stride) % 2:
            raise ValueError(f"kernel={kernel} must exceed stride={stride} by an even number")
        self.factor, self.padding = stride, (kernel - stride) // 2
        left, right = (kernel - 1 - self.padding) // stride, (stride - 1 + self.padding) // stride
        self.window = Window(left + 1 + right, left=left, right=right)
        self.weight = nn.Parameter(torch.empty(in_channels, out_channels, kernel))
        self.bias = nn.Parameter(torch.empty(out_channels))
        bound = 1 / math.sqrt(out_channels * kernel)
        nn.init.uniform_(self.weight, -bound, bound)
        nn.init.uniform_(self.bias, -bound, bound)

    def forward(self, x: Tensor) -> Tensor:
        """(B, T, in) to (B, T · stride, out)."""
        return self._spread(F.pad(x, (0, 0, self.window.left, self.window.right)))

    def initial_state(self, batch: int) -> WindowState:
        """The inputs that coming outputs still see."""
        return WindowState.zeros(self.window, batch, self.weight.shape[0], like=self.weight)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Blocks of outputs whose inputs have all come."""
        chunk = as_chunk(x, last)
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        return stretch.with_data(self._spread(stretch.data), stretch.length * self.factor)

    def inputs_for(self, outputs: int) -> int:
        """Up to the last input that the block of the last output sees."""
        return self.window.inputs_for(-(-outputs // self.factor))

    def _spread(self, x: Tensor) -> Tensor:
        """Inputs with those around them to the outputs of what is in the middle."""
        steps = max(x.shape[1] - self.window.context, 0)
        if steps == 0:
            return x.new_zeros(x.shape[0], 0, self.weight.shape[1])
        y = F.conv_transpose1d(x.transpose(1, 2), self.weight, self.bias, self.factor).transpose(1, 2)
        first = self.window.left * self.factor + self.padding
        return y[:, first : first + steps * self.factor]


class RepeatedConv1d(Conv1d):
    """A causal convolution over steps, each repeated ``factor`` times: (B, T, in) to (B, T · factor, out)."""

    def __init__(self, in_channels: int, out_channels: int, kernel: int, factor: int) -> None:
        super().__init__(in_channels, out_channels, kernel)
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        """Whole streams."""
        return super().forward(x.repeat_interleave(self.factor, dim=1))

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """``factor`` outputs for every input."""
        chunk = as_chunk(x, last)
        many = chunk.data.repeat_interleave(self.factor, dim=1, output_size=chunk.data.shape[1] * self.factor)
        return super().step(chunk.with_data(many, chunk.length * self.factor), state, rows)

    def inputs_for(self, outputs: int) -> int:
        """The input that the last output repeats."""
        return -(-outputs // self.factor)


class MirroredStart(StreamingModule):
    """`torch.nn.ReflectionPad1d((1, 0))` over (B, T, C): the second step is put before the first one, T + 1 steps.

    A step is given when the one behind it has come.
    """

    like: Tensor  # device and dtype

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.channels, self.window = channels, Window(2, left=1, right=1, reflect="left")
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        """Whole streams of at least 2 steps."""
        return torch.cat([x[:, 1:2], x], dim=1)

    def initial_state(self, batch: int) -> WindowState:
        """Nothing before the stream."""
        return WindowState.zeros(self.window, batch, self.channels, like=self.like)

    def step(self, x: Chunk | Tensor, state: WindowState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Steps one behind."""
        chunk = as_chunk(x, last)
        stretch = slide(self.window, chunk, state, as_rows(rows, chunk))
        return stretch.with_data(stretch.data[:, : max(stretch.data.shape[1] - 1, 0)])

    def inputs_for(self, outputs: int) -> int:
        """One more."""
        return self.window.inputs_for(outputs)
