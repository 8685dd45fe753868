"""The path, its loss and its solver; the masks."""

from __future__ import annotations

import math

import pytest
import torch

from loquent.tts.flow.masks import FULL, ChunkMask, MaskMixture, seen
from loquent.tts.flow.matching import FlowMatching, drop_conditions, guide, prompt_prefixes


def generator() -> torch.Generator:
    return torch.Generator().manual_seed(0)


@pytest.mark.parametrize("mask", [ChunkMask(1), ChunkMask(3), ChunkMask(3, left=4), ChunkMask(2, 0), FULL])
def test_a_frame_sees_its_chunk_and_what_is_left_of_it(mask):
    size = mask.chunk or 11
    left = 11 if mask.left is None else mask.left
    expected = [[i // size * size - left <= j < (i // size + 1) * size for j in range(11)] for i in range(11)]
    assert mask.seen(11)[0].tolist() == expected


def test_rows_have_their_own_masks_and_lengths():
    masks = [ChunkMask(3), ChunkMask(1, left=2), FULL]
    got = seen(masks, torch.tensor([7, 5, 2]), 7)
    for row, (mask, length) in enumerate(zip(masks, [7, 5, 2], strict=True)):
        assert torch.equal(got[row, :length, :length], mask.seen(length)[0])
        assert not got[row, :length, length:].any()
    assert got.any(dim=2).all()


def test_masks_that_make_no_sense_are_refused():
    with pytest.raises(ValueError, match="chunk=0"):
        ChunkMask(0)
    with pytest.raises(ValueError, match="left=-1"):
        ChunkMask(1, -1)
    with pytest.raises(ValueError, match="2 masks"):
        MaskMixture((FULL, ChunkMask(1)), (1.0,))
    assert ChunkMask.of_chunks(25, 2) == ChunkMask(25, 50)


def test_a_mixture_draws_by_weight():
    mixture = MaskMixture((FULL, ChunkMask(1), ChunkMask(5)), (1.0, 0.0, 3.0))
    drawn = mixture.sample(2000, generator())
    assert ChunkMask(1) not in drawn
    assert 0.2 < drawn.count(FULL) / 2000 < 0.3
    assert len(set(MaskMixture((FULL, ChunkMask(1))).sample(100, generator()))) == 2


@pytest.mark.parametrize("schedule", ["linear", "cosine"])
@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_following_the_true_velocity_leads_from_the_noise_to_the_data(prediction, schedule):
    flow = FlowMatching(sigma_min=1e-3, prediction=prediction, schedule=schedule)
    noise, data = torch.randn(2, 2, 5, 4, generator=generator())
    velocity = data - (1 - flow.sigma_min) * noise
    for steps in (1, 3, 10):
        end = flow.solve(lambda step, x: velocity if prediction == "velocity" else data, noise, steps)
        torch.testing.assert_close(end, data + flow.sigma_min * noise)


def test_the_solver_follows_a_curved_field():
    flow = FlowMatching(schedule="linear")  # dx/dt = x has the solution e
    end = flow.solve(lambda step, x: x, torch.ones(1, 1, 1), 1000)
    assert abs(float(end) - math.e) < 2e-3


def test_times_of_the_cosine_schedule_begin_densely():
    times = FlowMatching().times(10)
    assert times == pytest.approx([1 - math.cos(math.pi / 2 * k / 10) for k in range(11)])
    assert FlowMatching(schedule="linear").times(4) == [0, 0.25, 0.5, 0.75, 1]
    with pytest.raises(ValueError, match="at least 1 step"):
        FlowMatching().times(0)


@pytest.mark.parametrize("prediction", ["velocity", "data"])
def test_the_loss_is_zero_for_the_truth_and_leaves_out_what_does_not_count(prediction):
    flow = FlowMatching(prediction=prediction)
    target = torch.randn(3, 6, 4, generator=generator())
    draw = flow.draw(target, generator())
    at = draw.t[:, None, None]
    torch.testing.assert_close(draw.x, (1 - (1 - flow.sigma_min) * at) * draw.noise + at * target)
    truth = target if prediction == "data" else target - (1 - flow.sigma_min) * draw.noise
    counted = torch.arange(6) < torch.tensor([6, 3, 0])[:, None]
    wrong = torch.where(counted[:, :, None], truth, torch.nan)
    assert flow.loss(wrong, target, draw, counted).tolist() == [0, 0, 0]
    torch.testing.assert_close(flow.loss(wrong + 2, target, draw, counted), torch.tensor([4.0, 4.0, 0.0]))


def test_times_are_drawn_at_the_start_as_often_as_is_asked():
    target = torch.zeros(1000, 1, 1)
    even, half = FlowMatching().draw(target, generator()).t, FlowMatching(at_start=0.5).draw(target, generator()).t
    assert 0 < even.min() < even.max() < 1
    assert 0.45 < (half == 0).float().mean() < 0.55
    assert (even < 0.5).float().mean() == pytest.approx(2 / 3, abs=0.05)  # cos(π u / 2) > 1/2 for u < 2/3


def test_guidance_leads_away_from_the_unconditional():
    a, b = torch.tensor(3.0), torch.tensor(1.0)
    assert guide(a, b, 0.7) == pytest.approx(1.7 * 3 - 0.7)
    flow, x = FlowMatching(prediction="data"), torch.tensor(0.2)
    velocities = [flow.velocity(y, x, 0.4) for y in (a, b)]
    torch.testing.assert_close(flow.velocity(guide(a, b, 0.7), x, 0.4), guide(*velocities, 0.7))


def test_conditions_are_dropped_for_whole_rows():
    dropped = drop_conditions(torch.ones(1000, 3, 2), 0.2, generator()).flatten(1)
    assert set(dropped.sum(dim=1).tolist()) == {0, 6}
    assert 0.15 < (dropped == 0).all(dim=1).float().mean() < 0.25


def test_prompts_are_beginnings_of_some_rows():
    lengths = torch.full((2000,), 40)
    prompts = prompt_prefixes(lengths, 50, generator=generator())
    count = prompts.sum(dim=1)
    assert torch.equal(prompts, torch.arange(50) < count[:, None])
    assert set(count.tolist()) == set(range(13))
    assert 0.5 < (count == 0).float().mean() < 0.6
