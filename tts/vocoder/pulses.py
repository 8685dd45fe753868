"""A pulse train from the fundamental frequency: the source of voiced sound."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide

TURN = 1 << 40  # units of phase in a period
NEAR = 1e-3  # radians around a pulse where the ratio of sines is its limit


@dataclass
class PulseState(State):
    """The last frames, and the phase that the stream has reached."""

    frames: WindowState
    phase: Tensor  # (S,) int64, in units of 1 / TURN of a period


class PulseTrain(StreamingModule):
    """Frequencies of frames (B, T) in Hz to samples (B, T · hop): all harmonics below a limit, each of amplitude 1::

        Σ_{h = 1 … H} cos(h φ) = sin((H + 1/2) φ) / (2 sin(φ / 2)) - 1/2,   H = floor(f_max / f)

    Between the middles of frames the frequency is a line, before the first and after the last one it is constant. A
    sample below ``threshold`` Hz is silent; the phase goes on there at the threshold's frequency.

    The phase φ is a sum over all samples of the stream. It is kept as an integer modulo one period, so that it is the
    same bits however the stream is cut, and as precise after days as at the start.

    Args:
        lookahead: frames after its own that a sample waits for. One is enough; more delay pulses until what is made of
            the same frames elsewhere has come, too.
    """

    like: Tensor  # device

    def __init__(
        self, sample_rate: int, hop: int, lookahead: int = 1, *, threshold: float = 40.0, f_max: float = 11000.0
    ) -> None:
        super().__init__()
        if hop % 2 or lookahead < 1:
            raise ValueError(
                f"expected an even hop, as lines meet in the middle of a frame, and a look-ahead of at least 1 frame, "
                f"got hop={hop}, lookahead={lookahead}"
            )
        self.sample_rate, self.hop, self.threshold, self.f_max = sample_rate, hop, threshold, f_max
        self.window = Window(lookahead + 2, left=1, right=lookahead)
        self.register_buffer("like", torch.zeros(0), persistent=False)

    def initial_state(self, batch: int) -> PulseState:
        """Phase 0, nothing before it."""
        frames = WindowState.zeros(self.window, batch, 2, like=self.like)
        return PulseState(frames, torch.zeros_like(frames.received))

    def forward(self, x: Tensor) -> Tensor:
        """Samples of whole streams."""
        return self.step(x, self.initial_state(x.shape[0]), last=True).data[:, : x.shape[1] * self.hop]

    def step(self, x: Chunk | Tensor, state: PulseState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Samples of every frame whose next ones have come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        # Where there is no frame the windows are 0, and so is the mark beside the frequency.
        marked = torch.stack([chunk.data, torch.ones_like(chunk.data)], dim=-1)
        stretch = slide(self.window, chunk.with_data(marked), state.frames, rows)
        frames, samples = max(stretch.data.shape[1] - self.window.context, 0), stretch.length * self.hop
        if frames == 0:
            return stretch.with_data(chunk.data.new_zeros(chunk.data.shape[0], 0), samples)
        f, there = stretch.data[:, : frames + 2].unbind(-1)
        now = f[:, 1:-1]
        before = torch.where(there[:, :-2] > 0, f[:, :-2], now)[:, :, None]
        after = torch.where(there[:, 2:] > 0, f[:, 2:], now)[:, :, None]
        now = now[:, :, None]
        half = self.hop // 2
        weight = (torch.arange(half, device=f.device) + 0.5) / self.hop
        first = before * (0.5 - weight) + now * (0.5 + weight)
        second = now * (1 - weight) + after * weight
        frequency = torch.cat([first, second], dim=-1)

        step = frequency.clamp(min=self.threshold).double() * (TURN / self.sample_rate)
        valid = torch.arange(frames, device=f.device) < stretch.length[:, None]
        step = torch.where(valid[:, :, None], step.round().long(), 0).flatten(1)
        phase = state.phase[rows, None] + step.cumsum(1)
        state.phase[rows] = phase[:, -1] % TURN
        return stretch.with_data(self._pulses(frequency.flatten(1), phase), samples)

    def inputs_for(self, outputs: int) -> int:
        """The frames after the one of the last output."""
        return self.window.inputs_for(-(-outputs // self.hop))

    def _pulses(self, frequency: Tensor, phase: Tensor) -> Tensor:
        """Samples from frequencies in Hz and phases in units of 1 / TURN, at the CPU's or the device's precision."""
        # Around 0, where pulses are, a float is precise: from -1/2 to 1/2 of a period.
        centred = (phase + TURN // 2) % TURN - TURN // 2
        angle = centred.to(frequency.dtype) * (2 * math.pi / TURN)
        harmonics = (self.f_max / frequency.clamp(min=self.threshold)).floor() + 0.5
        below = 2 * (angle / 2).sin()
        near = below.abs() <= 2 * NEAR
        ratio = (harmonics * angle).sin() / below.masked_fill(near, 1)
        pulses = torch.where(near, harmonics, ratio) - 0.5
        return torch.where(frequency > self.threshold, pulses, 0)
