"""Frames to samples: conditions, the flow under a chunk mask, the vocoder; each continues where it was."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.speech.nn.state import MOST, State
from loquent.speech.nn.streaming import ChainState, Chunk, as_chunk, as_rows, take_steps
from loquent.tts.acoustics import Renderer
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.noise import Noise
from loquent.tts.flow.solver import FlowSolver, SolverState
from loquent.tts.flow_voice.acoustic import CURVES, HALVES, MATCHING, AcousticNet
from loquent.tts.flow_voice.vocoder import HOP, N_FFT, Vocoder
from loquent.tts.vocoder.harmonic_noise import HarmonicNoiseRenderer, HarmonicNoiseState

SAMPLE_RATE = 24000
APART = 1 << 43  # the noise of the flow is not that of the vocoder


@dataclass
class FlowRendererState(State):
    """What the three networks remember, and the curves of frames whose spectrogram is not there yet."""

    conditioner: ChainState
    solver: SolverState
    curves: Tensor  # (S, lookahead + chunk - 1, 4) of the last frames
    received: Tensor  # (S,) int64 frames
    solved: Tensor  # (S,) int64 frames
    vocoder: HarmonicNoiseState


class FlowRenderer(Renderer):
    """Frames of 25 ms, (B, T, C + 6), to samples (B, 600 · T); the last six of a frame are its curves (`acoustic`).

    A chunk of the mask is solved as soon as its frames, and as many as the conditions look ahead, have come.

    Args:
        acoustic, vocoder: the networks.
        noise: where the flow begins.
        mask: of the flow; with the full mask streams cannot be continued, only `forward` runs.
        steps: of the solver. guidance: weight of classifier-free guidance; 0 is none.
    """

    def __init__(
        self, acoustic: AcousticNet, vocoder: Vocoder, noise: Noise, mask: ChunkMask, *, steps: int, guidance: float
    ) -> None:
        super().__init__()
        self.conditioner = acoustic.conditioner
        self.solver = FlowSolver(acoustic.estimator, noise, mask, matching=MATCHING, steps=steps, guidance=guidance)
        self.vocoder = HarmonicNoiseRenderer(vocoder, SAMPLE_RATE, HOP, N_FFT)
        self.held = self.conditioner.latency + (mask.chunk or 1) - 1

    def initial_state(self, batch: int) -> FlowRendererState:
        """Streams with seed 0 at frame 0."""
        vocoder = self.vocoder.initial_state(batch)
        like = self.solver.times
        return FlowRendererState(
            self.conditioner.initial_state(batch),
            self.solver.initial_state(batch),
            like.new_zeros(batch, self.held, CURVES - HALVES),
            torch.zeros(batch, dtype=torch.long, device=like.device),
            torch.zeros(batch, dtype=torch.long, device=like.device),
            vocoder,
        )

    def seek(self, state: FlowRendererState, rows: Tensor, seeds: Tensor, frames: Tensor) -> None:
        """See `Renderer.seek`; of a seed, the lowest 44 bits count."""
        self.solver.seek(state.solver, rows, seeds % MOST ^ APART, frames)
        self.vocoder.seek(state.vocoder, rows, seeds, HALVES * frames)

    def forward(self, x: Tensor) -> Tensor:
        """Samples of whole streams with seed 0, from frame 0."""
        mel = self.solver(self.conditioner(x))
        return self.vocoder(_halves(mel, x[:, :, -CURVES : HALVES * 2 - CURVES]))

    def step(
        self, x: Chunk | Tensor, state: FlowRendererState, rows: Tensor | None = None, last: bool = False
    ) -> Chunk:
        """Samples that no later frame reaches."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        mel = self.solver.step(self.conditioner.step(chunk, state.conditioner, rows), state.solver, rows)
        curves = self._held_curves(chunk, mel, state, rows)
        frames = mel.with_data(_halves(mel.data, curves), HALVES * mel.length)
        return self.vocoder.step(frames, state.vocoder, rows)

    def inputs_for(self, outputs: int) -> int:
        """Look-aheads of the vocoder, whole chunks of the mask, the look-ahead of the conditions."""
        frames = -(-self.vocoder.inputs_for(outputs) // HALVES)
        return self.conditioner.inputs_for(self.solver.inputs_for(frames))

    def _held_curves(self, chunk: Chunk, mel: Chunk, state: FlowRendererState, rows: Tensor) -> Tensor:
        """The curves (B, T', 4) of the frames that were solved."""
        new = chunk.data[:, :, -CURVES : HALVES * 2 - CURVES]
        joined = torch.cat([state.curves[rows], new], dim=1)
        received, solved = state.received[rows], state.solved[rows]
        place = torch.arange(mel.data.shape[1], device=new.device)
        wanted = (solved - received + self.held)[:, None] + place
        kept = chunk.length[:, None] + torch.arange(self.held, device=new.device)
        state.curves[rows] = take_steps(joined, kept)
        state.received[rows] = received + chunk.length
        state.solved[rows] = solved + mel.length
        return take_steps(joined, wanted.clamp(0, joined.shape[1] - 1))


def _halves(mel: Tensor, curves: Tensor) -> Tensor:
    """Stacked spectra (B, T, 2 · mels) and curves (B, T, 4) to frames of the vocoder: (B, 2 T, mels + 2)."""
    split = [part.unflatten(2, (HALVES, -1)) for part in (mel, curves[:, :, :HALVES], curves[:, :, HALVES:])]
    return torch.cat(split, dim=3).flatten(1, 2)
