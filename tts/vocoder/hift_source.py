"""The source of HiFT: sines at the fundamental frequency and its harmonics, and noise."""

from __future__ import annotations

import math
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from loquent.kernels.counter_noise import counter_noise
from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import Chunk, StreamingModule, Window, WindowState, as_chunk, as_rows, slide

TURN = 1 << 40  # units of phase in a period


@dataclass
class SourceState(State):
    """The last frame, the phases that the stream has reached, and where its noise stands."""

    frames: WindowState
    phase: Tensor  # (S, harmonics + 1) int64, in units of 1 / TURN of a period
    seed: Tensor  # (S,) int64
    frame: Tensor  # (S,) int64, number of the next frame


class HarmonicSource(StreamingModule):
    """F0 of frames (B, T) in Hz to samples of the source (B, T · hop)::

        tanh(w · (voiced · amplitude · sin φ_h + noise) + b)     φ_h(n) = 2π Σ_{m ≤ n} frac(h f / rate), h = 1 … H + 1

    as CosyVoice's `SineGen2` and `SourceModuleHnNSF` (NSF, arXiv 1904.12088) compute it: the phase is a sum over whole
    frames. CosyVoice 2 draws lines between frames, where the first and the last half frame stand still, and noise is
    normal. CosyVoice 3 (``causal``) holds the phase for a frame, so that there is nothing to wait for, and its noise is
    even between 0 and 1.

    The phase is an integer modulo one period: the same bits however a stream is cut, and as precise after days as at
    the start, where upstream's float32 loses a digit every few seconds. What upstream draws at random for the phases
    has no effect there, and does not exist here. Noise is a function of the stream's seed, the sample and the harmonic.

    Args:
        sample_rate: in Hz. hop: samples of a frame.
        harmonics: H, besides the fundamental.
        amplitude: of the sines. noise: deviation of the noise where there is voice; elsewhere it is amplitude / 3.
        threshold: a frame above it, in Hz, is voiced.
    """

    def __init__(
        self,
        sample_rate: int,
        hop: int,
        *,
        harmonics: int = 8,
        amplitude: float = 0.1,
        noise: float = 0.003,
        threshold: float = 10.0,
        causal: bool,
    ) -> None:
        super().__init__()
        if hop % 2:
            raise ValueError(f"hop={hop} must be even: lines meet in the middle of a frame")
        self.sample_rate, self.hop, self.voices = sample_rate, hop, harmonics + 1
        self.amplitude, self.noise, self.threshold, self.causal = amplitude, noise, threshold, causal
        ahead = 0 if causal else 1
        self.window = Window(1 + ahead, right=ahead)
        self.l_linear = nn.Linear(self.voices, 1)

    def initial_state(self, batch: int) -> SourceState:
        """Phase 0 and seed 0."""
        frames = WindowState.zeros(self.window, batch, like=self.l_linear.weight)
        zeros = torch.zeros_like(frames.received)
        return SourceState(frames, zeros[:, None].repeat(1, self.voices), zeros.clone(), zeros.clone())

    def seek(self, state: SourceState, rows: Tensor, seeds: Tensor) -> None:
        """Give slots that were reset the seeds (N,) of their noise, of which the lowest 44 bits count."""
        state.seed[rows] = seeds % MOST

    def forward(self, x: Tensor, seeds: Tensor | None = None) -> Tensor:
        """Samples of whole streams, with seed 0 unless seeds (B,) are given."""
        state, rows = self.initial_state(x.shape[0]), torch.arange(x.shape[0], device=x.device)
        if seeds is not None:
            self.seek(state, rows, seeds)
        return self.step(x, state, rows, last=True).data[:, : x.shape[1] * self.hop]

    def step(self, x: Chunk | Tensor, state: SourceState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Samples of frames, in CosyVoice 2 of those whose next one has come."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        stretch = slide(self.window, chunk, state.frames, rows)
        frames = max(stretch.data.shape[1] - self.window.right, 0)
        if frames == 0:
            return stretch.with_data(chunk.data.new_zeros(chunk.data.shape[0], 0), stretch.length * self.hop)
        first = state.frame[rows]
        number = first[:, None] + torch.arange(frames, device=first.device)
        sines, state.phase[rows] = self._sines(stretch, number, state.phase[rows])
        state.frame[rows] = first + stretch.length

        voiced = (stretch.data[:, :frames] > self.threshold)[:, :, None, None]
        noise = counter_noise(state.seed[rows], number, self.hop * self.voices).unflatten(2, (self.hop, self.voices))
        if self.causal:
            noise = torch.special.ndtr(noise)
        level = torch.where(voiced, self.noise, self.amplitude / 3)
        source = torch.where(voiced, self.amplitude * sines, 0) + level * noise
        return stretch.with_data(self.l_linear(source).tanh().flatten(1), stretch.length * self.hop)

    def inputs_for(self, outputs: int) -> int:
        """The frame of the last sample, in CosyVoice 2 the one after it."""
        return self.window.inputs_for(-(-outputs // self.hop))

    def _sines(self, stretch: Chunk, number: Tensor, phase: Tensor) -> tuple[Tensor, Tensor]:
        """(B, T, hop, voices) of frames and those after them, and the phases (B, voices) behind the last ones."""
        frames, ahead = number.shape[1], self.window.right
        harmonic = torch.arange(1, self.voices + 1, device=number.device)
        turns = stretch.data.double()[:, :, None] * harmonic / self.sample_rate
        speed = ((turns - turns.floor()) * TURN).round().long()  # per sample
        valid = (torch.arange(frames, device=number.device) < stretch.length[:, None])[:, :, None]
        reached = phase[:, None] + torch.where(valid, speed[:, :frames] * self.hop, 0).cumsum(1)
        at = reached[:, :, None]
        if ahead:
            # Twice the samples from the middle of the frame: -(hop - 1), …, -1, 1, …, hop - 1.
            twice = 2 * torch.arange(self.hop, device=number.device)[:, None] - (self.hop - 1)
            moving = (number > 0)[:, :, None, None]
            before = torch.where(moving, speed[:, :frames, None], 0)
            at = at + torch.where(twice < 0, before, speed[:, ahead:, None]) * twice // 2
        # Around 0 a float is precise.
        centred = (at + TURN // 2) % TURN - TURN // 2
        angle = centred.to(self.l_linear.weight.dtype) * (2 * math.pi / TURN)
        return angle.sin().expand(-1, -1, self.hop, -1), reached[:, -1] % TURN
