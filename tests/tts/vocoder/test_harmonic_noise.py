"""The renderer of harmonics and noise: what it puts together, how it streams, and what its noise depends on."""

import math

import pytest
import torch
from torch import nn

from loquent.kernels.counter_noise import counter_noise
from loquent.speech.nn.convolution import Conv1d
from loquent.speech.nn.streaming import Chain
from loquent.tts.vocoder.harmonic_noise import HarmonicNoiseRenderer, harmonic_noise_spectrum

FRAMES, SIZE = 30, 6  # four features, pitch and energy


def renderer(lookahead=3, hop=4, n_fft=16):
    torch.manual_seed(0)
    decoder = Chain(Conv1d(SIZE, 5 * (n_fft // 2 + 1), lookahead + 2, right=lookahead), nn.Tanh())
    with torch.no_grad():
        decoder.stages[0].weight[:, -2] /= 300  # pitch is in Hz
    return HarmonicNoiseRenderer(decoder, 24000, hop, n_fft).eval()


def frames(rows=3, count=FRAMES):
    x = torch.randn(rows, count, SIZE)
    time = torch.arange(count) + 3 * torch.arange(rows)[:, None]
    x[..., -2] = torch.where(time % 11 < 3, 0.0, 200 + 30 * torch.sin(time / 5))
    return x


def test_a_spectrum_is_filtered_pulses_and_noise_and_a_rest():
    parts, noise = torch.randn(2, 3, 20), torch.randn(2, 3, 8)
    parts[0, 0, :4] = 9.0  # louder than the limit
    source = torch.randn(2, 3, 4, dtype=torch.complex64)
    lh, theta, ln, lr, phi = parts.double().split(4, dim=-1)
    gain = torch.exp(lh.clamp(max=7)) * torch.exp(1j * math.pi * theta.tanh())
    breath = torch.exp(ln) * torch.complex(*noise.double().split(4, dim=-1))
    expected = gain * source + breath + torch.exp(lr) * torch.exp(1j * phi)
    got = harmonic_noise_spectrum(parts, source, noise)
    torch.testing.assert_close(got, expected.to(torch.complex64), rtol=1e-5, atol=1e-5)


@pytest.mark.parametrize("lookahead", [2, 3, 7])
def test_it_streams(check_streaming, lookahead):
    module = renderer(lookahead)
    assert module.latency == lookahead + 2
    check_streaming(module, frames(), rtol=0, atol=3e-5)


def test_a_decoder_that_is_ahead_of_its_source_is_refused():
    with pytest.raises(ValueError, match="look-ahead of 1 frames is ahead of its source, 2 frames"):
        renderer(1)


def test_noise_is_a_function_of_the_seed_and_of_the_frame_alone():
    module, x = renderer(), frames(1)
    state = module.initial_state(4)
    with torch.no_grad():

        def said(slot, seed, first, cuts):
            rows = torch.tensor([slot])
            state.reset([slot])
            module.seek(state, rows, torch.tensor([seed]), torch.tensor([first]))
            parts = x.split(cuts, dim=1)
            return torch.cat([module.step(part, state, rows, last=part is parts[-1]).data[0] for part in parts])

        base = said(0, 5, 1000, FRAMES)
        torch.testing.assert_close(said(2, 5, 1000, [4, 17, 9]), base, rtol=0, atol=3e-5)
        torch.testing.assert_close(said(1, 0, 0, FRAMES), module(x)[0], rtol=0, atol=3e-5)
        for seed, first in ((6, 1000), (5, 1001), (-5, 1000)):
            assert (said(3, seed, first, FRAMES) - base).abs().max() > 0.1

        # It is the noise of those frames: with it exchanged by hand for that of others, the samples are those.
        noise = counter_noise(torch.tensor([5]), torch.arange(1000, 1000 + FRAMES)[None], 18)
        source = module.stft(module.pulses(x[:, :, -2]))
        by_hand = module.inverse(harmonic_noise_spectrum(module.decoder(x), source, noise))[0]
        torch.testing.assert_close(base, by_hand, rtol=0, atol=3e-5)


def test_seeds_of_any_size_make_a_state_that_can_be_saved():
    module = renderer()
    state = module.initial_state(3)
    module.seek(state, torch.arange(3), torch.tensor([2**62, -1, 0]), torch.tensor([0, 2**40, 7]))
    module.step(frames(), state)
    loaded = module.initial_state(3)
    loaded.from_bytes(state.to_bytes())
    assert torch.equal(loaded.seed, state.seed)
    assert loaded.frame.tolist() == [FRAMES - 3, 2**40 + FRAMES - 3, 7 + FRAMES - 3]
