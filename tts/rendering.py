"""A chunk of frames of every stream to samples: one shape for each size of batch, and one copy to the host."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor

from loquent.speech.nn.streaming import Chunk
from loquent.speech.nn.transfer import Fetched, staged
from loquent.speech.runtime.batch import bucket
from loquent.speech.runtime.replay import Replay
from loquent.tts.acoustics import Renderer


class Rendering:
    """A renderer, with a graph for each size of batch where there are graphs."""

    def __init__(self, renderer: Renderer) -> None:
        self.renderer = renderer
        self._replay = Replay(self._run)

    def __call__(
        self, frames: Tensor, state: Any, rows: Tensor, lengths: list[int], finished: list[bool], *more: Tensor
    ) -> tuple[list[Tensor], tuple[Tensor, ...]]:
        """Render a chunk of streams.

        Args:
            frames: (S, T, C) of the whole pool.
            state: the renderer's pool. Where it is not on the CPU its last slot is no stream's.
            rows: (B,) slots of the streams.
            lengths: how many frames of each are rendered.
            finished: whether an utterance ends with them.
            more: that are wanted on the host.

        Returns:
            The samples of each stream, and ``more``, on the host.
        """
        device = frames.device
        padding = 0 if frames.is_cpu else bucket(len(rows)) - len(rows)
        all_rows = torch.cat([rows, rows.new_full((padding,), len(frames) - 1)])
        ends = staged([*finished, *[False] * padding], device, bool)
        chunk = Chunk(frames[all_rows], staged([*lengths, *[0] * padding], device), ends)
        data, length, *others = Fetched(*self._replay(chunk, state, all_rows), *more).wait()
        return [row[:count] for row, count in zip(data, length[: len(rows)].tolist(), strict=False)], tuple(others)

    def _run(self, chunk: Chunk, state: Any, rows: Tensor) -> tuple[Tensor, ...]:
        samples = self.renderer.step(chunk, state, rows)
        return samples.data, samples.length
