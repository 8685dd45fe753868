"""A flow that is trained in a moment, under all masks at once, streams what it has learnt."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loquent.tts.flow.estimator import CompactConfig, CompactEstimator
from loquent.tts.flow.masks import FULL, ChunkMask, MaskMixture, seen
from loquent.tts.flow.matching import FlowMatching, drop_conditions, prompt_prefixes
from loquent.tts.flow.noise import CounterNoise
from loquent.tts.flow.solver import FlowSolver

BINS = 4
MASKS = (FULL, ChunkMask(1, 8), ChunkMask(4, 8))


def pairs(batch: int, draw: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
    """Conditions (B, 24, 2 · BINS), half of them for the prompt; what is to be made of them; lengths of the rows."""
    mu = torch.randn(batch, 24, BINS, generator=draw)
    target = 0.7 * mu.roll(1, dims=2) + 0.5 * mu.cumsum(1) / torch.arange(1, 25).sqrt()[:, None]
    return torch.cat([mu, torch.zeros_like(mu)], dim=2), target, torch.randint(12, 25, (batch,), generator=draw)


@pytest.mark.parametrize("prediction", ["data", "velocity"])
def test_one_network_learns_every_mask(prediction):
    torch.manual_seed(0)
    draw = torch.Generator().manual_seed(0)
    config = CompactConfig(BINS, 2 * BINS, channels=48, layers=2, kernel=5, attention=(1,), heads=2)
    estimator, flow = CompactEstimator(config), FlowMatching(prediction=prediction)
    optimizer = torch.optim.AdamW(estimator.parameters(), lr=4e-3)
    mixture, losses = MaskMixture(MASKS), []
    for _ in range(150):
        condition, target, lengths = pairs(16, draw)
        prompt = prompt_prefixes(lengths, 24, generator=draw)
        condition[:, :, BINS:] = target * prompt[:, :, None]
        at = flow.draw(target, draw)
        visible = seen(mixture.sample(16, draw), lengths, 24)
        predicted = estimator(at.x, drop_conditions(condition, 0.1, draw), at.t, visible)
        counted = (torch.arange(24) < lengths[:, None]) & ~prompt
        loss = flow.loss(predicted, target, at, counted).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert math.fsum(losses[-10:]) < 0.4 * math.fsum(losses[:10])

    condition, target, _ = pairs(4, draw)
    with torch.no_grad():
        for mask in MASKS:
            made = FlowSolver(estimator.eval(), CounterNoise(), mask, matching=flow, steps=4)(condition)
            assert (made - target).square().mean() < 0.4 * target.square().mean(), mask
