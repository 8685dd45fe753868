"""Learning rates as functions of the step, and averaged weights."""

from __future__ import annotations

import math
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Literal, TypeAlias

import torch
from torch import Tensor, nn

Schedule: TypeAlias = Literal["cosine", "noam", "constant"]


def learning_rate(schedule: Schedule, step: int, steps: int, warmup: int) -> float:
    """Share of the highest learning rate at ``step`` of 0 … ``steps`` - 1.

    It rises linearly over ``warmup`` steps, then stays (constant), falls to a hundredth as half a cosine, or with the
    inverse root of the step (noam, Vaswani et al. 2017).
    """
    if step < warmup:
        return (step + 1) / warmup
    if schedule == "constant":
        return 1.0
    if schedule == "noam":
        return math.sqrt(max(warmup, 1) / (step + 1))
    return 0.01 + 0.99 * (1 + math.cos(math.pi * (step - warmup) / max(steps - warmup, 1))) / 2


class AveragedWeights:
    """Exponential moving average of the trained parameters, over about 1 / (1 - decay) steps (Polyak averaging).

    Args:
        module: what is trained, as training finds it.
        decay: of a step's weight in the average.
        start_share: how much of the weights that training found is mixed into the average when it is put in place
            (WiSE-FT, Wortsman et al. 2022, arXiv 2109.01903, equation 1).
    """

    def __init__(self, module: nn.Module, decay: float, start_share: float = 0.0) -> None:
        self.decay, self.updates, self.start_share = decay, 0, start_share
        self._trained = {name: p for name, p in module.named_parameters() if p.requires_grad}
        self.weights = {name: p.detach().clone() for name, p in self._trained.items()}
        self._start = {name: p.clone() for name, p in self.weights.items()} if start_share else {}

    def update(self) -> None:
        """Take in the weights of one more step; the window grows from a few steps to its full length."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates))
        torch._foreach_lerp_(list(self.weights.values()), [p.detach() for p in self._trained.values()], 1 - decay)

    @contextmanager
    def in_place(self) -> Iterator[None]:
        """While the block runs, the module has the averaged weights."""
        kept = {name: p.detach().clone() for name, p in self._trained.items()}
        self._put(self.weights)
        for name, start in self._start.items():
            self._trained[name].data.lerp_(start, self.start_share)
        try:
            yield
        finally:
            self._put(kept)

    def load(self, weights: dict[str, Tensor], updates: int) -> None:
        """Go on from a checkpoint."""
        for name, value in self.weights.items():
            value.copy_(weights[name])
        self.updates = updates

    @torch.no_grad()
    def _put(self, weights: dict[str, Tensor]) -> None:
        for name, p in self._trained.items():
            p.copy_(weights[name])
