"""From conditions to a mel spectrogram, whole or chunk by chunk, at a cost per chunk that never grows."""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Tensor

from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Blocks, Chunk, StreamingModule, WindowState, as_chunk, as_rows
from loquent.tts.flow.incremental import Estimator, EstimatorState, Whole
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.matching import FlowMatching, guide
from loquent.tts.flow.noise import Noise


@dataclass
class SolverState(State):
    """Frames that wait for their chunk, each solver step's caches, and where the noise is."""

    waiting: WindowState
    caches: EstimatorState  # (S, steps · branches, ...)
    seed: Tensor  # (S,) int64
    frame: Tensor  # (S,) int64, of the next chunk


class FlowSolver(StreamingModule):
    """Solves the flow of conditions (B, T, C) into spectrograms (B, T, M).

    Every step of the solver runs the estimator over frames that differ from those of the other steps; so each keeps the
    keys, values and convolution tails of its own. Under the chunk mask this gives what the whole pass gives, and since
    the mask's left context is bounded, a chunk costs the same wherever it stands.

    Args:
        estimator: the network. noise: where the flow begins. matching: the path that it was trained on.
        mask: what a frame sees; the full mask, or one without a bound to the left, can only be run whole.
        steps: of the solver. guidance: w of classifier-free guidance; 0 saves the unconditional pass.
    """

    times: Tensor  # (steps,) at which the estimator is asked

    def __init__(
        self,
        estimator: Estimator,
        noise: Noise,
        mask: ChunkMask,
        *,
        matching: FlowMatching | None = None,
        steps: int = 10,
        guidance: float = 0.0,
    ) -> None:
        super().__init__()
        self.estimator, self.noise, self.mask = estimator, noise, mask
        self.matching = matching or FlowMatching()
        self.steps, self.guidance, self.branches = steps, guidance, 2 if guidance else 1
        self.blocks = Blocks(mask.chunk or 1, estimator.conditions)
        self.register_buffer("times", torch.tensor(self.matching.times(steps)[:-1]), persistent=False)

    def forward(self, condition: Tensor, seeds: Tensor | None = None) -> Tensor:
        """The whole stream under the mask; seeds (B,) int64 are 0 unless given."""
        batch, frames = condition.shape[:2]
        start = torch.zeros(batch, dtype=torch.long, device=condition.device)
        noise = self.noise(start if seeds is None else seeds, start, frames, self.estimator.bins).to(condition)
        every = self._branches(condition)
        seen = None if self.mask.chunk is None else self.mask.seen(frames, condition.device)

        moments = self.estimator.moment(self.times.to(condition.dtype))

        def predict(step: int, x: Tensor) -> Tensor:
            data = torch.cat([self._repeat(x), every], dim=2)
            return self._guide(self.estimator.estimate(data, moments[step : step + 1], Whole(seen)))

        return self.matching.solve(predict, noise, self.steps)

    def initial_state(self, batch: int) -> SolverState:
        """Empty caches, seed 0."""
        sets = self.steps * self.branches
        caches = self.estimator.initial_state(batch * sets, self.mask)
        start = torch.zeros(batch, dtype=torch.long, device=self.times.device)
        each = caches.map(lambda x: x.unflatten(0, (batch, sets)))
        return SolverState(self.blocks.initial_state(batch), each, start, start.clone())

    def seek(self, state: SolverState, rows: Tensor, seeds: Tensor, frames: Tensor | None = None) -> None:
        """Give slots that were reset the seeds of their noise, and the number of their first frame, 0 unless given.

        Args:
            rows: (N,) int64 slots. seeds, frames: (N,) int64.
        """
        state.seed[rows] = seeds
        if frames is not None:
            state.frame[rows] = frames

    def step(self, x: Chunk | Tensor, state: SolverState, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Solve the chunks of the mask that are complete."""
        chunk = as_chunk(x, last)
        rows = as_rows(rows, chunk)
        chunk = self.blocks.step(chunk, state.waiting, rows)
        condition, bins = chunk.data, self.estimator.bins
        if condition.shape[1] == 0:
            return chunk.with_data(condition.new_zeros(len(rows), 0, bins))
        frame = state.frame[rows]
        noise = self.noise(state.seed[rows], frame, condition.shape[1], bins).to(condition)

        # One pool of all slots, steps and branches: set k of slot s is entry s · sets + k of a view without copies.
        sets = self.steps * self.branches
        caches = state.caches.map(lambda part: part.flatten(0, 1))
        every = self._branches(condition)
        first = torch.cat([rows * sets + branch for branch in range(self.branches)])
        length, end = (part.repeat(self.branches) for part in (chunk.length, chunk.last))
        moments = self.estimator.moment(self.times.to(condition.dtype))

        def predict(step: int, x: Tensor) -> Tensor:
            data = chunk.with_data(torch.cat([self._repeat(x), every], dim=2), length, end)
            at = first + step * self.branches
            return self._guide(self.estimator.step(data, moments[step : step + 1], caches, at, self.mask))

        y = self.matching.solve(predict, noise, self.steps)
        state.frame[rows] = frame + chunk.length
        return chunk.with_data(y)

    def inputs_for(self, outputs: int) -> int:
        """Whole chunks of the mask."""
        return self.blocks.inputs_for(outputs)

    def _branches(self, condition: Tensor) -> Tensor:
        """The rows with their conditions, and once more without where there is guidance."""
        return condition if self.branches == 1 else torch.cat([condition, torch.zeros_like(condition)])

    def _repeat(self, x: Tensor) -> Tensor:
        return x if self.branches == 1 else torch.cat([x, x])

    def _guide(self, y: Tensor) -> Tensor:
        if self.branches == 1:
            return y
        conditional, unconditional = y.chunk(2)
        return guide(conditional, unconditional, self.guidance)
