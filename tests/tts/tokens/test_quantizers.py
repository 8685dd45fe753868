"""The quantisers: which code a frame gets, what comes back, and how they learn."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loquent.tts.tokens.finite_scalar import FiniteScalarQuantizer
from loquent.tts.tokens.group_residual import GroupResidualQuantizer


def test_three_levels_give_the_codes_of_cosyvoice() -> None:
    torch.manual_seed(0)
    quantizer, x = FiniteScalarQuantizer(16), 3 * torch.randn(2, 500, 16)
    h = (quantizer.project_down(x).tanh() * 0.9990000128746033).round() + 1
    codes = quantizer.encode(x)
    assert torch.equal(codes, (h * 3.0 ** torch.arange(8)).sum(-1).long())
    assert quantizer.codebook_size == 6561
    assert codes.unique().numel() > 300


@pytest.mark.parametrize("levels", [(3,) * 8, (8, 5, 5, 5), (4, 3, 7)])
def test_every_code_of_finite_scalars_is_its_own_decoding(levels: tuple[int, ...]) -> None:
    quantizer = FiniteScalarQuantizer(len(levels), levels)
    codes = torch.arange(quantizer.codebook_size)
    values = quantizer.decode(codes)
    assert values.min() == -1
    assert values.unique(dim=0).shape == (quantizer.codebook_size, len(levels))
    with torch.no_grad():  # a projection that undoes the bound
        quantizer.project_down.weight.copy_(torch.eye(len(levels)))
        quantizer.project_down.bias.zero_()
    bounded = (values * quantizer.lowest + quantizer.offset) / quantizer.half_width
    assert torch.equal(quantizer.encode(bounded.clamp(-0.9999, 0.9999).atanh() - quantizer.shift), codes)


def test_gradients_pass_the_rounding_straight_through() -> None:
    torch.manual_seed(0)
    quantizer, x = FiniteScalarQuantizer(6, (5, 4, 3), up=True), torch.randn(7, 6, requires_grad=True)
    values, codes = quantizer(x)
    torch.testing.assert_close(values, quantizer.decode(codes))
    assert torch.equal(codes, quantizer.encode(x))
    (found,) = torch.autograd.grad(values.sum(), x)
    assert quantizer.project_up is not None
    unrounded = quantizer.project_up(quantizer._bound(x) / quantizer.lowest)
    torch.testing.assert_close(found, torch.autograd.grad(unrounded.sum(), x)[0])


@pytest.mark.parametrize("levels", [(), (3, 2), (3,) * 20])
def test_codebooks_that_cannot_be_are_refused(levels: tuple[int, ...]) -> None:
    with pytest.raises(ValueError, match="levels"):
        FiniteScalarQuantizer(8, levels)


def nearest_by_search(quantizer: GroupResidualQuantizer, frame: Tensor) -> tuple[list[int], Tensor]:
    """Codes of one frame and their sum, written out."""
    left, codes, found = frame.clone(), [], torch.zeros_like(frame)
    width = len(frame) // quantizer.groups
    for stage in range(quantizer.stages):
        for group in range(quantizer.groups):
            part = slice(group * width, (group + 1) * width)
            distances = [(left[part] - entry).norm().item() for entry in quantizer.codebooks[stage, group]]
            code = min(range(len(distances)), key=distances.__getitem__)
            codes.append(code)
            left[part] -= quantizer.codebooks[stage, group, code]
            found[part] += quantizer.codebooks[stage, group, code]
    return codes, found


@torch.no_grad()
def test_group_residual_codes_are_the_nearest_stage_by_stage() -> None:
    torch.manual_seed(0)
    quantizer = GroupResidualQuantizer(6, codebook_size=9, groups=2, stages=2)
    quantizer.codebooks.normal_()
    x = torch.randn(2, 5, 6)
    codes = quantizer.encode(x)
    values = quantizer.decode(codes)
    assert codes.shape == (2, 5, 4)
    for row, frame in [(0, 0), (1, 4)]:
        expected, found = nearest_by_search(quantizer, x[row, frame])
        assert codes[row, frame].tolist() == expected
        torch.testing.assert_close(values[row, frame], found)
    whole = quantizer(x)
    assert torch.equal(whole.codes, codes)
    torch.testing.assert_close(whole.values, values)
    coarse = quantizer.decode(codes[..., :2])
    assert (x - values).square().mean() < (x - coarse).square().mean() < x.square().mean()


def test_group_residual_codebooks_learn_and_frames_get_gradients() -> None:
    torch.manual_seed(0)
    quantizer = GroupResidualQuantizer(4, codebook_size=4, groups=2, stages=2)
    centres = torch.randn(4, 4)
    x = (centres[torch.randint(4, (400,))] + 0.05 * torch.randn(400, 4)).requires_grad_()
    (gradient,) = torch.autograd.grad(quantizer(x).values.sum(), x)
    assert torch.equal(gradient, torch.ones_like(x))
    optimizer = torch.optim.Adam(quantizer.parameters(), lr=0.05)
    losses = []
    for _ in range(150):
        loss = quantizer(x.detach()).loss
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        losses.append(loss.item())
    assert losses[-1] < 0.2 * losses[0]


def test_groups_must_divide_the_channels() -> None:
    with pytest.raises(ValueError, match="groups=2 must divide dim=5"):
        GroupResidualQuantizer(5)
