"""Frames to samples: the laws of streaming, for every mask and number of steps."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor

from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.noise import CounterNoise
from loquent.tts.flow_voice.renderer import FlowRenderer


def renderer(nets, chunk: int | None = 5, steps: int = 1, guidance: float = 0.0) -> FlowRenderer:
    mask = ChunkMask(chunk, None if chunk is None else 2 * chunk)
    return FlowRenderer(nets.acoustic, nets.vocoder, CounterNoise(), mask, steps=steps, guidance=guidance).eval()


def frames(streams: int = 3, count: int = 16) -> Tensor:
    """Features, pitch with unvoiced stretches, energy and places."""
    torch.manual_seed(1)
    x = torch.randn(streams, count, 8 + 6)
    pitch = torch.rand(streams, count, 2) * 100 + 120
    x[:, :, 8:10] = torch.where(torch.rand(streams, count, 1) < 0.3, 0, pitch)
    return x


@pytest.mark.parametrize(("chunk", "steps", "guidance"), [(1, 1, 0.0), (5, 2, 0.5), (10, 1, 0.0)])
def test_laws(nets, check_streaming, chunk: int, steps: int, guidance: float) -> None:
    module = renderer(nets, chunk, steps, guidance)
    x = frames()
    assert module(x).shape == (3, 16 * 600)
    assert module(x).abs().max() > 1e-3
    check_streaming(module, x, atol=1e-4, examples=4)


def test_an_utterance_can_begin_at_any_frame_of_the_noise(nets) -> None:
    module, x = renderer(nets), frames(2)
    state = module.initial_state(2)
    module.seek(state, torch.tensor([0, 1]), torch.tensor([3, 4]), torch.tensor([0, 0]))
    first = module.step(x[:1].repeat(2, 1, 1), state, last=True).data
    assert not torch.equal(first[0], first[1])
    state.reset()
    module.seek(state, torch.tensor([0, 1]), torch.tensor([3, 3]), torch.tensor([0, 7]))
    again = module.step(x[:1].repeat(2, 1, 1), state, last=True).data
    torch.testing.assert_close(again[0], first[0])
    assert not torch.equal(again[0], again[1])


def test_the_full_mask_runs_whole(nets) -> None:
    module, x = renderer(nets, None), frames()
    whole = module(x)
    changed = x.clone()
    changed[:, -1] += 1
    assert not torch.equal(module(changed)[:, :600], whole[:, :600])  # the first frame sees the last one
    chunked = renderer(nets, 5)
    torch.testing.assert_close(chunked(changed)[:, : 7 * 600], chunked(x)[:, : 7 * 600])
