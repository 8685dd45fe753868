"""HiFT: what CosyVoice's own code computes with the same weights, and the laws of streaming."""

from __future__ import annotations

from fractions import Fraction
from pathlib import Path
from typing import NamedTuple

import pytest
import torch
from safetensors.torch import load_file
from torch import Tensor

from loquent.tts.vocoder.hift import Hift, HiftConfig

DATA = Path(__file__).parent / "data"
SEED = torch.tensor([3])
HOP = 480


class Case(NamedTuple):
    """One of upstream's vocoders."""

    model: Hift
    goldens: dict[str, Tensor]
    weights: dict[str, Tensor]


@pytest.fixture(scope="module", params=[2, 3], ids=["CosyVoice 2", "CosyVoice 3"])
def case(request: pytest.FixtureRequest) -> Case:
    tensors = load_file(DATA / f"hift_cosyvoice{request.param}.safetensors")
    weights = {
        name.removeprefix("weights."): tensors.pop(name).float() for name in sorted(tensors) if "weights." in name
    }
    return Case(Hift.from_weights(config(request.param == 3), weights), tensors, weights)


def config(causal: bool) -> HiftConfig:
    return HiftConfig(in_channels=8, base_channels=16, f0_channels=12, causal=causal)


def small(causal: bool) -> Hift:
    """Of two stages, for the laws."""
    torch.manual_seed(0)
    shape = HiftConfig(
        in_channels=8,
        base_channels=16,
        nb_harmonics=2,
        upsample_rates=(4, 3),
        upsample_kernel_sizes=(8, 5),
        resblock_kernel_sizes=(3, 7),
        resblock_dilation_sizes=((1, 3), (1, 3)),
        source_resblock_kernel_sizes=(7, 11),
        source_resblock_dilation_sizes=((1, 3), (1, 3)),
        f0_channels=12,
        causal=causal,
    )
    model = Hift(shape).eval()
    torch.nn.init.normal_(model.f0_predictor.classifier.weight, std=300)
    return model


@torch.no_grad()
def test_f0_source_and_samples_are_upstreams(case: Case) -> None:
    mel = case.goldens["mel"][None]
    f0 = case.model.f0_predictor(mel)
    torch.testing.assert_close(f0[0], case.goldens["f0"], rtol=1e-4, atol=1e-3)
    assert 0 < (f0 > 10).sum() < f0.numel()
    # Upstream's phase is a float32 that has come to a thousand turns.
    torch.testing.assert_close(case.model.m_source(f0, SEED)[0], case.goldens["source"], rtol=0, atol=3e-4)
    torch.testing.assert_close(case.model(mel, SEED)[0], case.goldens["samples"], rtol=0, atol=1e-3)


@torch.no_grad()
def test_what_upstream_gives_before_the_end_is_part_of_the_whole(case: Case) -> None:
    if "early" in case.goldens:
        early = case.goldens["early"]
        state = case.model.initial_state(1)
        case.model.seek(state, torch.tensor([0]), SEED)
        found = case.model.step(case.goldens["mel"][None], state).data[0]
        assert len(found) > len(early)  # which waits for frames that it does not need
        torch.testing.assert_close(found[: len(early)], early, rtol=0, atol=1e-3)


@pytest.mark.parametrize("causal", [False, True])
def test_hift_streams(causal: bool, check_streaming) -> None:
    # Of many frames ahead too little arrives to be seen in floats.
    check_streaming(small(causal), torch.randn(2, 30, 8), rtol=0, atol=1e-4, tight=causal, examples=2)


@torch.no_grad()
def test_packets_of_frames_give_the_whole(case: Case) -> None:
    mel, state, rows = case.goldens["mel"][None], case.model.initial_state(1), torch.tensor([0])
    case.model.seek(state, rows, SEED)
    parts = [case.model.step(mel[:, a:b], state, rows, last=b == 20).data for a, b in ((0, 1), (1, 9), (9, 20))]
    torch.testing.assert_close(torch.cat(parts, dim=1), case.model(mel, SEED), rtol=0, atol=1e-5)


def test_its_look_ahead_is_declared(case: Case) -> None:
    frames = 5 if case.model.config.causal else 21
    assert case.model.latency == frames
    assert case.model.inputs_for(HOP) == frames + 1
    assert case.model.stride == Fraction(1, HOP)


@torch.no_grad()
def test_noise_belongs_to_the_stream_not_to_its_slot() -> None:
    model, mel = small(True), torch.randn(1, 12, 8)
    expected = model(mel.expand(2, -1, -1), torch.tensor([4, 5]))
    assert (expected[0] - expected[1]).abs().max() > 1e-4
    state = model.initial_state(3)
    model.seek(state, torch.tensor([2, 0]), torch.tensor([4, 5]))
    parts = [
        model.step(mel[:, a:b].expand(2, -1, -1), state, torch.tensor([2, 0]), last=b == 12).data
        for a, b in ((0, 7), (7, 12))
    ]
    torch.testing.assert_close(torch.cat(parts, dim=1), expected, rtol=0, atol=1e-5)


@torch.no_grad()
def test_the_state_does_not_grow() -> None:
    model = small(False)
    state = model.initial_state(1)
    size = state.nbytes
    for _ in range(6):
        model.step(torch.randn(1, 11, 8), state)
        state.check()
    assert state.nbytes == size


def test_both_spellings_of_weight_norm_load(case: Case) -> None:
    old = {
        name.replace("parametrizations.weight.original0", "weight_g").replace(
            "parametrizations.weight.original1", "weight_v"
        ): weight
        for name, weight in case.weights.items()
    }
    assert old.keys() != case.weights.keys()
    of_a_gan = {f"generator.{name}": weight for name, weight in old.items()}
    for weights in (old, of_a_gan, case.model.state_dict()):
        loaded = Hift.from_weights(case.model.config, weights).state_dict()
        assert all(torch.equal(one, loaded[name]) for name, one in case.model.state_dict().items())


def test_weights_that_do_not_fit_are_refused(case: Case) -> None:
    direction = "conv_pre.parametrizations.weight.original1"
    without = {name: weight for name, weight in case.weights.items() if name != direction}
    with pytest.raises(ValueError, match=r"of conv_pre, only conv_pre.parametrizations.weight.original0 is there"):
        Hift.from_weights(case.model.config, without)
    with pytest.raises(ValueError, match=r"of conv_pre, shapes \[16, 1, 1\] and \[3, 8, 7\] make no normalised weight"):
        Hift.from_weights(case.model.config, case.weights | {direction: torch.zeros(3, 8, 7)})
    with pytest.raises(ValueError, match=r"missing \['conv_post.bias'\]"):
        Hift.from_weights(
            case.model.config, {name: weight for name, weight in case.weights.items() if name != "conv_post.bias"}
        )
    other = HiftConfig(in_channels=8, base_channels=16, f0_channels=14, causal=case.model.config.causal)
    with pytest.raises(ValueError, match=r"f0_predictor\.\S+ has shape .* expected"):
        Hift.from_weights(other, case.weights)


def test_sizes_that_do_not_fit_are_refused() -> None:
    with pytest.raises(ValueError, match="3 upsample_rates need as many kernel sizes"):
        HiftConfig(upsample_kernel_sizes=(16, 11))
    with pytest.raises(ValueError, match="must be a multiple of 8"):
        HiftConfig(base_channels=100)
    with pytest.raises(ValueError, match="whole numbers from 1"):
        HiftConfig(in_channels=0)
    with pytest.raises(ValueError, match="must exceed stride=5 by an even number"):
        Hift(HiftConfig(in_channels=8, base_channels=16, f0_channels=12, upsample_kernel_sizes=(16, 10, 7)))
