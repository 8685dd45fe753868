"""Conditional flow matching: a straight path from noise to a mel spectrogram, its loss, and the solver.

A network learns the velocity along the path (Lipman et al., arXiv 2210.02747, with the optimal-transport path of
equations 20-23); the solver follows it from noise to data. B streams, T frames, M bins of a frame, C conditions.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal, NamedTuple

import torch
from torch import Tensor


class Draw(NamedTuple):
    """A training example on the path.

    x: (B, T, M), where the path is at time t. t: (B,) in 0 … 1. noise: (B, T, M), where the path began.
    """

    x: Tensor
    t: Tensor
    noise: Tensor


@dataclass(frozen=True)
class FlowMatching:
    """The path x(t) = (1 - (1 - σ) t) x₀ + t x₁ from noise x₀ to data x₁, with velocity x₁ - (1 - σ) x₀.

    sigma_min:  σ, the noise that is left at the end.
    prediction: what the network gives: the velocity, or the data x₁, which a single step of the solver then returns.
    schedule:   where the solver's steps lie, and how densely training draws times: evenly, or t = 1 - cos(π u / 2) of
                an even u, with shorter steps where the path begins.
    at_start:   share of training examples at t = 0, which is all that a solver of one step ever asks for.
    """

    sigma_min: float = 1e-6
    prediction: Literal["velocity", "data"] = "velocity"
    schedule: Literal["linear", "cosine"] = "cosine"
    at_start: float = 0.0

    def times(self, steps: int) -> list[float]:
        """The times 0 … 1 between which ``steps`` steps of the solver lie: steps + 1 of them."""
        if steps < 1:
            raise ValueError(f"the solver needs at least 1 step, got {steps}")
        return [self._warp(step / steps) for step in range(steps + 1)]

    def draw(self, target: Tensor, generator: torch.Generator | None = None) -> Draw:
        """Draw noise and a time for each row of ``target`` (B, T, M); the generator is one of its device."""
        batch, device, dtype = target.shape[0], target.device, target.dtype
        u = torch.rand(batch, generator=generator, device=device, dtype=dtype)
        # 1 - cos(π u / 2), without the loss of digits near 0.
        t = 2 * torch.sin(u * (math.pi / 4)) ** 2 if self.schedule == "cosine" else u
        if self.at_start:
            start = torch.rand(batch, generator=generator, device=device) < self.at_start
            t = torch.where(start, 0, t)
        noise = torch.randn(target.shape, generator=generator, device=device, dtype=dtype)
        at = t[:, None, None]
        return Draw((1 - (1 - self.sigma_min) * at) * noise + at * target, t, noise)

    def loss(self, predicted: Tensor, target: Tensor, draw: Draw, counted: Tensor) -> Tensor:
        """Mean square error of what the network predicts.

        Args:
            predicted: (B, T, M) what the network makes of ``draw.x`` at ``draw.t``.
            target: (B, T, M) x₁.
            counted: (B, T) bool, frames that count: not padding, and where wanted not the prompt.

        Returns:
            (B,) mean over the frames of each row; 0 where none counts.
        """
        aim = target if self.prediction == "data" else target - (1 - self.sigma_min) * draw.noise
        error = (predicted - aim).square().mean(dim=2)
        return torch.where(counted, error, 0).sum(dim=1) / counted.sum(dim=1).clamp(min=1)

    def velocity(self, predicted: Tensor, x: Tensor, t: float) -> Tensor:
        """Velocity at time t < 1 in x (B, T, M), of what the network predicts there."""
        if self.prediction == "velocity":
            return predicted
        rest = 1 - self.sigma_min
        return (predicted - rest * x) / (1 - rest * t)

    def solve(self, predict: Callable[[int, Tensor], Tensor], noise: Tensor, steps: int) -> Tensor:
        """Follow the flow from noise to data by Euler's method.

        Args:
            predict: what the network gives at the solver's step k (0 … steps - 1), time ``times(steps)[k]``, in x.
            noise: (B, T, M) where to begin.
        """
        x, times = noise, self.times(steps)
        for step, (t, after) in enumerate(itertools.pairwise(times)):
            x = x + (after - t) * self.velocity(predict(step, x), x, t)
        return x

    def _warp(self, u: float) -> float:
        return 1 - math.cos(u * math.pi / 2) if self.schedule == "cosine" else u


def guide(conditional: Tensor, unconditional: Tensor, weight: float) -> Tensor:
    """Classifier-free guidance (arXiv 2207.12598): (1 + w) · conditional - w · unconditional.

    It may be applied to predicted data just as to velocities: one is affine in the other.
    """
    return (1 + weight) * conditional - weight * unconditional


def drop_conditions(condition: Tensor, share: float, generator: torch.Generator | None = None) -> Tensor:
    """Set the conditions (B, T, C) of a ``share`` of the rows to zero, to learn what guidance leads away from."""
    keep = torch.rand(condition.shape[0], generator=generator, device=condition.device) >= share
    return condition * keep[:, None, None]


def prompt_prefixes(
    lengths: Tensor, frames: int, *, share: float = 0.5, longest: float = 0.3, generator: torch.Generator | None = None
) -> Tensor:
    """Draw the beginnings of rows that training gives away, as a voice prompt is given.

    Args:
        lengths: (B,) int64 frames of each row. frames: T.
        share: of the rows that have a prompt. longest: part of a row that a prompt takes at most.

    Returns:
        (B, T) bool; the prompt condition is the target there, and zero elsewhere.
    """
    device = lengths.device
    chosen = torch.rand(len(lengths), generator=generator, device=device) < share
    part = torch.rand(len(lengths), generator=generator, device=device)
    most = (longest * lengths).long()
    prompt = torch.where(chosen, (part * (most + 1)).long().clamp(max=most), 0)
    return torch.arange(frames, device=device) < prompt[:, None]
