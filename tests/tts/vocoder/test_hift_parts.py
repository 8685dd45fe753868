"""The parts of HiFT: torch's own modules where there are some, and the laws of streaming."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from loquent.speech.nn.streaming import Chunk
from loquent.tts.vocoder.branches import Delay, Meeting
from loquent.tts.vocoder.f0_predictor import F0Predictor
from loquent.tts.vocoder.hift_source import HarmonicSource
from loquent.tts.vocoder.snake_blocks import MeanOfBlocks, SnakeBlock
from loquent.tts.vocoder.upsampling import MirroredStart, PaddedConvTranspose1d, RepeatedConv1d


@pytest.mark.parametrize(("kernel", "stride"), [(16, 8), (11, 5), (7, 3), (4, 4), (2, 2)])
def test_padded_transposed_convolution_is_torchs(kernel: int, stride: int, check_streaming) -> None:
    torch.manual_seed(0)
    module, x = PaddedConvTranspose1d(3, 2, kernel, stride), torch.randn(2, 9, 3)
    reference = nn.ConvTranspose1d(3, 2, kernel, stride, padding=(kernel - stride) // 2)
    reference.load_state_dict(module.state_dict())
    torch.testing.assert_close(module(x), reference(x.transpose(1, 2)).transpose(1, 2))
    check_streaming(module, x, examples=6)


def test_a_repeated_convolution_is_one_over_repeated_steps(check_streaming) -> None:
    torch.manual_seed(0)
    module, x = RepeatedConv1d(3, 2, 7, 4), torch.randn(2, 9, 3)
    many = nn.Upsample(scale_factor=4, mode="nearest")(x.transpose(1, 2))
    expected = nn.functional.conv1d(nn.functional.pad(many, (6, 0)), module.weight, module.bias)
    torch.testing.assert_close(module(x), expected.transpose(1, 2))
    check_streaming(module, x, examples=6)


def test_a_mirrored_start_is_torchs(check_streaming) -> None:
    module, x = MirroredStart(3), torch.randn(2, 9, 3)
    expected = nn.ReflectionPad1d((1, 0))(x.transpose(1, 2)).transpose(1, 2)
    torch.testing.assert_close(module(x), expected)
    check_streaming(module, x, shortest=2, tight=False, examples=6)


@pytest.mark.parametrize("steps", [0, 1, 5])
def test_a_delay_changes_nothing(steps: int, check_streaming) -> None:
    check_streaming(Delay(steps, 3), torch.randn(2, 12, 3), tight=steps == 0, examples=6)


@pytest.mark.parametrize("causal", [False, True])
def test_residual_blocks_stream(causal: bool, check_streaming) -> None:
    torch.manual_seed(0)
    blocks = [SnakeBlock(4, kernel, (1, 3), causal=causal).eval() for kernel in (3, 7)]
    assert [block.lookahead for block in blocks] == ([0, 0] if causal else [6, 18])
    check_streaming(blocks[1], torch.randn(2, 50, 4), examples=3)
    check_streaming(MeanOfBlocks(blocks, 4), torch.randn(2, 50, 4), examples=3)


def test_branches_meet() -> None:
    """One is 3 steps later than the other, whatever the packets."""
    meeting = Meeting(lambda n: n + 3 if n else 0, lambda n: n, channels=2)
    assert meeting.capacities == (0, 3)
    late, x = Delay(3, 2), torch.randn(2, 17, 2)
    rows = torch.tensor([1, 0])
    waiting, state, found = late.initial_state(2), meeting.initial_state(2), []
    for a, b in ((0, 1), (1, 1), (1, 6), (6, 8), (8, 17)):
        chunk = Chunk.of(x[:, a:b], last=b == 17)
        found.append(meeting.step(late.step(chunk, waiting, rows), chunk, state, rows))
        state.check()
    assert [chunk.length.tolist() for chunk in found] == [[0, 0], [0, 0], [3, 3], [2, 2], [12, 12]]
    torch.testing.assert_close(torch.cat([part.data for part in found], dim=1), 2 * x)


@pytest.mark.parametrize(("causal", "lookahead"), [(False, 5), (True, 3)])
def test_the_f0_predictor_streams(causal: bool, lookahead: int, check_streaming) -> None:
    torch.manual_seed(0)
    predictor = F0Predictor(4, 6, causal=causal).eval()
    assert predictor.latency == lookahead
    assert predictor(torch.randn(1, 5, 4)).dtype == torch.float32
    check_streaming(predictor, torch.randn(2, 30, 4), examples=6)


def source(causal: bool, harmonics: int = 2, hop: int = 20) -> HarmonicSource:
    torch.manual_seed(0)
    return HarmonicSource(2000, hop, harmonics=harmonics, causal=causal).eval()


@pytest.mark.parametrize("causal", [False, True])
def test_the_source_streams(causal: bool, check_streaming) -> None:
    f0 = torch.rand(2, 25) * 300 * (torch.rand(2, 25) < 0.7)
    check_streaming(source(causal), f0, rtol=0, atol=1e-6, examples=8)


@torch.no_grad()
def test_the_source_sings_at_the_given_frequency() -> None:
    module = source(False, harmonics=1, hop=40)
    module.l_linear.weight.copy_(torch.tensor([[1.0, 0.0]]))
    module.l_linear.bias.zero_()
    samples = module(torch.full((1, 100), 125.0))[0]
    power = torch.fft.rfft(samples).abs().square()
    peak = int(power.argmax())
    assert peak * 2000 / len(samples) == 125
    assert power[peak] > 0.98 * power.sum()


@torch.no_grad()
def test_the_phase_is_kept_exactly() -> None:
    module, f0 = source(False), torch.full((1, 5000), 117.3)
    state = module.initial_state(1)
    module.step(f0, state)
    given = 4999 * module.hop  # one frame waits
    for harmonic, phase in enumerate(state.phase[0].tolist(), start=1):
        speed = round(harmonic * float(f0[0, 0]) / 2000 % 1 * (1 << 40))
        assert phase == speed * given % (1 << 40)
    state.check()


@torch.no_grad()
def test_frames_without_voice_are_noise() -> None:
    module = source(True)
    module.l_linear.weight.fill_(1.0)
    module.l_linear.bias.zero_()
    silent = module(torch.full((1, 400), 9.0))
    assert silent.std() == pytest.approx(0.1 / 3 * 3**0.5 / 12**0.5, rel=0.05)  # of three even numbers
    normal = source(False)
    normal.l_linear.load_state_dict(module.l_linear.state_dict())
    assert normal(torch.full((1, 400), 9.0)).std() == pytest.approx(0.1 / 3 * 3**0.5, rel=0.05)
