"""ConvNeXt blocks along time, on their own and as a stack that streams."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import cast

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from loquent.kernels.convnext_step import ConvNeXtWeights, convnext_step
from loquent.speech.nn.linear import Linear
from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, as_chunk, as_rows, take_steps


class ConvNeXtBlock(nn.Module):
    """Depthwise convolution, norm and two pointwise layers, added to the input::

        y = x + scale · contract(gelu(expand(norm(depthwise(x)))))

    The block of Vocos (Siuzdak 2023, arXiv 2306.00814), after Liu et al. 2022 (arXiv 2201.03545).

    Args:
        dim: channels C. hidden: channels between the two pointwise layers.
        kernel, dilation: of the convolution, which sees (kernel - 1) · dilation + 1 steps.
        right: those that follow the step itself; half of the others by default.
        linear: of the pointwise layers.
    """

    def __init__(
        self,
        dim: int,
        hidden: int,
        kernel: int,
        dilation: int = 1,
        right: int | None = None,
        linear: type[nn.Linear] = Linear,
    ) -> None:
        super().__init__()
        span = (kernel - 1) * dilation
        self.right = span // 2 if right is None else right
        self.left, self.dilation = span - self.right, dilation
        if self.left < 0 or self.right < 0:
            raise ValueError(f"right={right} must be among the {span} steps that the convolution sees besides its own")
        self.depthwise = nn.Conv1d(dim, dim, kernel, dilation=dilation, groups=dim)
        self.norm = nn.LayerNorm(dim)
        self.expand, self.contract = linear(dim, hidden), linear(hidden, dim)
        self.scale = nn.Parameter(torch.ones(dim))

    def forward(self, x: Tensor, left: int | None = None, right: int | None = None) -> Tensor:
        """(B, T, C) to (B, T, C), with zeros before and after; to fewer steps with less than that.

        Args:
            left, right: zeros before and after; as many as the convolution sees there by default. With none the input
                has to bring the neighbours of the steps that are wanted.
        """
        left = self.left if left is None else left
        right = self.right if right is None else right
        mixed = self._mix(self._convolve(F.pad(x, (0, 0, left, right))))
        first = self.left - left
        return x[:, first : first + mixed.shape[1]] + mixed

    def advance(self, x: Tensor, tail: Tensor, rows: Tensor, length: Tensor) -> Tensor:
        """Take the next steps of some streams and give the results of as many, those of ``right`` steps before.

        Without dilation only.

        Args:
            x: (B, T, C); zeros where a stream has not begun or has ended.
            tail: (S, kernel - 1, C) pool of the last inputs, changed in place.
            rows: (B,) int64 slots. length: (B,) int64 steps of each row.

        Returns:
            (B, T, C).
        """
        return convnext_step(x, self._weights(), tail, rows, length, self.right)

    def _weights(self) -> ConvNeXtWeights:
        convolution, norm, expand, contract = self.depthwise, self.norm, self.expand, self.contract
        parameters = (
            *(convolution.weight.squeeze(1), convolution.bias, norm.weight, norm.bias),
            *(expand.weight, expand.bias, contract.weight, contract.bias, self.scale),
        )
        return ConvNeXtWeights(*cast(tuple[Tensor, ...], parameters))

    def _convolve(self, x: Tensor) -> Tensor:
        """(B, T + left + right, C) to (B, T, C)."""
        weight, bias = self.depthwise.weight, self.depthwise.bias
        if bias is None or not x.is_cpu or torch.is_grad_enabled():
            return F.conv1d(x.transpose(1, 2), weight, bias, dilation=self.dilation, groups=len(weight)).transpose(1, 2)
        # Twice as fast as torch's convolution for a few hundred steps.
        taps, steps = weight.squeeze(1).T, x.shape[1] - self.left - self.right
        y = torch.addcmul(bias, x[:, :steps], taps[0])
        for tap in range(1, len(taps)):
            first = tap * self.dilation
            y.addcmul_(x[:, first : first + steps], taps[tap])
        return y

    def _mix(self, x: Tensor) -> Tensor:
        return self.contract(F.gelu(self.expand(self.norm(x)))) * self.scale


@dataclass
class TailState(State):
    """The last inputs of a convolution."""

    tail: Tensor  # (S, kernel - 1, C)


@dataclass
class ConvNeXtState(State):
    """Inputs that each block still sees, and how many steps have come."""

    received: Tensor  # (S,) int64
    blocks: tuple[TailState, ...]


class ConvNeXtStack(StreamingModule):
    """ConvNeXt blocks one after another, (B, T, C) -> (B, T, C); their look-aheads add up.

    Convolutions that see the future stream exactly once each is made causal by a delay of its look-ahead and the other
    branch, here the residual one, is delayed alike: Caillon and Esling, "Streamable Neural Audio Synthesis With
    Non-Causal Convolutions", 2022 (arXiv 2204.07064). There the first steps of a stream differ from those of the whole
    signal, as each layer makes something of the silence before it. Here what lies outside the stream is zero to every
    layer, as it is in the whole.

    Args:
        blocks: without dilation.
    """

    def __init__(self, blocks: Sequence[ConvNeXtBlock]) -> None:
        super().__init__()
        if any(block.dilation > 1 for block in blocks):
            raise ValueError("blocks with dilation do not stream")
        self.blocks = nn.ModuleList(blocks)
        lookahead = sum(block.right for block in blocks)
        self.window = Window(lookahead + 1, right=lookahead)

    def initial_state(self, batch: int) -> ConvNeXtState:
        """Nothing but zeros before the stream."""
        like = next(self.parameters())
        received = torch.zeros(batch, dtype=torch.long, device=like.device)
        sizes = ((batch, block.left + block.right, block.scale.shape[0]) for block in self._typed_blocks)
        return ConvNeXtState(received, tuple(TailState(like.new_zeros(size)) for size in sizes))

    def forward(self, x: Tensor) -> Tensor:
        """Apply every block to the whole input."""
        for block in self.blocks:
            x = block(x)
        return x

    def step(self, x: Chunk | Tensor, state: ConvNeXtState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Outputs whose inputs have all come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        lookahead, data = self.window.right, chunk.data.contiguous()  # a convolution gives its channels in rows
        before = state.received[rows]
        after = before + chunk.length
        count = self.window.outputs(after, chunk.last) - self.window.outputs(before, False)
        ends = chunk.static or bool(chunk.last.any())
        if ends:
            data = F.pad(data, (0, 0, 0, lookahead))
        inside = not ends and bool((before >= lookahead).all())  # and so are all inputs of all blocks
        position = before[:, None] + torch.arange(data.shape[1], device=data.device)
        end = torch.where(chunk.last, after, MOST)[:, None]
        length = chunk.length + lookahead * chunk.last
        for block, past in zip(self._typed_blocks, state.blocks, strict=True):
            if not inside:
                data = torch.where(((position >= 0) & (position < end))[:, :, None], data, 0)
            data = block.advance(data, past.tail, rows, length)
            position = position - block.right
        state.received[rows] = after
        most = chunk.room(count, data.shape[1])
        if inside:
            return chunk.with_data(data[:, :most], count)
        wanted = (lookahead - before).clamp(min=0)[:, None] + torch.arange(most, device=data.device)
        return chunk.with_data(take_steps(data, wanted.clamp(max=max(data.shape[1] - 1, 0))), count)

    def inputs_for(self, outputs: int) -> int:
        """All look-aheads further."""
        return self.window.inputs_for(outputs)

    @property
    def _typed_blocks(self) -> list[ConvNeXtBlock]:
        return cast(list[ConvNeXtBlock], list(self.blocks))  # ModuleList does not tell
