"""The solver, chunk by chunk: the laws, with the compact estimator."""

from __future__ import annotations

import pytest
import torch

from loquent.speech.nn.streaming import Chunk
from loquent.tts.flow.estimator import CompactConfig, CompactEstimator
from loquent.tts.flow.masks import FULL, ChunkMask
from loquent.tts.flow.matching import FlowMatching
from loquent.tts.flow.noise import CounterNoise, Noise, NoiseTable
from loquent.tts.flow.solver import FlowSolver

BINS, CONDITIONS = 6, 5


def compact(seed: int = 0, **sizes: int) -> CompactEstimator:
    torch.manual_seed(seed)
    config = CompactConfig(BINS, CONDITIONS, channels=32, layers=3, kernel=3, attention=(1, 2), heads=2)
    estimator = CompactEstimator(config).eval()
    torch.nn.init.normal_(estimator.film.weight, std=0.1)  # so that time matters
    return estimator


def solver(mask: ChunkMask, noise: Noise | None = None, **options) -> FlowSolver:
    return FlowSolver(compact(), noise or NoiseTable(BINS, 100), mask, **options).eval()


def conditions(batch: int = 3, frames: int = 23) -> torch.Tensor:
    return torch.randn(batch, frames, CONDITIONS, generator=torch.Generator().manual_seed(1))


@pytest.mark.parametrize(
    ("mask", "guidance"),
    [(ChunkMask(1, 3), 0.0), (ChunkMask(4, 8), 0.7), (ChunkMask(5, 2), 0.7), (ChunkMask(3, 0), 0.0)],
)
def test_chunk_by_chunk_is_the_whole_pass(check_streaming, mask, guidance):
    check_streaming(solver(mask, steps=2, guidance=guidance), conditions(), examples=5)


def test_predicted_data_streams_too(check_streaming):
    flow = FlowMatching(prediction="data", schedule="linear")
    check_streaming(solver(ChunkMask(4, 4), CounterNoise(), matching=flow, steps=2), conditions(), examples=4)


@pytest.mark.parametrize("mask", [FULL, ChunkMask(4)])
def test_a_stream_needs_a_bound(mask):
    whole = solver(mask)
    assert whole(conditions()).shape == (3, 23, BINS)
    with pytest.raises(ValueError, match="cannot be streamed"):
        whole.initial_state(1)


def test_the_cost_of_a_chunk_does_not_grow():
    module = solver(ChunkMask(4, 4), steps=2)
    state = module.initial_state(1)
    size, x = state.nbytes, conditions(1, 40)
    with torch.no_grad():
        for start in range(0, 40, 4):
            module.step(x[:, start : start + 4], state)
            assert state.nbytes == size


def test_long_left_context_is_the_whole_past():
    x = conditions(2, 20)
    with torch.no_grad():
        torch.testing.assert_close(solver(ChunkMask(4, 20))(x), solver(ChunkMask(4))(x))
        torch.testing.assert_close(solver(ChunkMask(20, 0))(x), solver(FULL)(x))


def test_noise_is_that_of_the_frame_and_the_mask_is_that_of_the_chunk():
    module, x = solver(ChunkMask(4, 4), steps=2), conditions(1, 24)
    with torch.no_grad():
        state = module.initial_state(2)
        rows = torch.tensor([1])
        module.seek(state, rows, torch.tensor([5]), torch.tensor([8]))
        late = module.step(Chunk.of(x[:, 8:12], last=True), state, rows).data
        moved = NoiseTable(BINS, 100)
        moved.table = moved.table.roll(-8, 0)
        torch.testing.assert_close(late, solver(ChunkMask(4, 4), moved, steps=2)(x[:, 8:12]))


def test_streams_have_noise_of_their_own():
    module, x = solver(ChunkMask(4, 4), CounterNoise(), steps=2), conditions(1, 8).expand(2, -1, -1)
    with torch.no_grad():
        state = module.initial_state(2)
        module.seek(state, torch.tensor([0, 1]), torch.tensor([3, 4]))
        both = module.step(x, state, last=True).data
        torch.testing.assert_close(both, module(x, torch.tensor([3, 4])))
        assert (both[0] - both[1]).abs().max() > 0.1


def test_a_table_is_that_of_cosyvoice_and_begins_anew_at_its_end():
    table = NoiseTable()
    torch.manual_seed(0)
    expected = torch.randn(1, 80, 50 * 300)[0].T
    got = table(torch.tensor([0, 7]), torch.tensor([3, 14_998]), 4, 80)
    torch.testing.assert_close(got[0], expected[3:7], rtol=0, atol=0)
    torch.testing.assert_close(got[1], torch.cat([expected[-2:], expected[:2]]), rtol=0, atol=0)
    with pytest.raises(ValueError, match="80 bins"):
        table(torch.tensor([0]), torch.tensor([0]), 1, 40)


def test_guidance_of_weight_zero_is_the_conditional_alone():
    x = conditions(2, 8)
    with torch.no_grad():
        plain, nearly = solver(ChunkMask(4, 4))(x), solver(ChunkMask(4, 4), guidance=1e-7)(x)
        torch.testing.assert_close(plain, nearly)
        assert (plain - solver(ChunkMask(4, 4), guidance=1.0)(x)).abs().max() > 1e-3


def test_what_an_estimator_sees_when_it_trains_is_what_it_sees_when_it_streams():
    estimator, x = compact(), conditions(1, 12)
    mel, t = torch.randn(1, 12, BINS), torch.tensor([0.3])
    both = torch.cat([mel, x], dim=2)
    mask = ChunkMask(4, 4)
    with torch.no_grad():
        whole = estimator(mel, x, t, mask.seen(12))
        state = estimator.initial_state(1, mask)
        parts = [
            estimator.step(Chunk.of(both[:, a : a + 4]), estimator.moment(t), state, torch.tensor([0]), mask)
            for a in (0, 4, 8)
        ]
    torch.testing.assert_close(torch.cat(parts, 1), whole)


def test_a_layer_that_does_not_exist_has_no_attention():
    with pytest.raises(ValueError, match="outside 0 … 1"):
        CompactConfig(4, 4, layers=2, attention=(2,))
