"""The pulse train: a sum of cosines, with a phase that does not know how the stream is cut."""

import math
from fractions import Fraction

import pytest
import torch
from torch.nn import functional as F

from loquent.speech.nn.streaming import Chunk
from loquent.tts.vocoder.pulses import TURN, PulseTrain


def sum_of_cosines(f0, sample_rate, hop, threshold=40.0, f_max=11000.0):
    """In double precision, one harmonic at a time."""
    padded = F.pad(f0.double()[:, None], (1, 1), mode="replicate")
    f = F.interpolate(padded, scale_factor=hop, mode="linear", align_corners=False)[:, 0, hop:-hop]
    phase = (f.clamp(min=threshold) / sample_rate).cumsum(1) * 2 * math.pi
    count = (f_max / f.clamp(min=threshold)).floor()
    total = torch.zeros_like(f)
    for h in range(1, int(count.max()) + 1):
        total += torch.where(h <= count, (h * phase).cos(), 0)
    return torch.where(f > threshold, total, 0)


def melody(frames, rows=2):
    time = torch.arange(frames) + 7.0 * torch.arange(rows)[:, None]
    f0 = 180 + 60 * torch.sin(time / 9)
    return torch.where((time % 31) < 9, -2.0, f0)  # with unvoiced stretches


def test_it_is_the_sum_of_all_harmonics():
    f0 = melody(50)
    got = PulseTrain(24000, 60)(f0)
    expected = sum_of_cosines(f0, 24000, 60).float()
    assert got.shape == (2, 3000)
    assert expected.abs().max() > 30
    # At its top a pulse is the limit of the sum, as high as the number of harmonics.
    assert ((got - expected).abs() < 0.1).all()
    assert (got - expected).square().mean() < 1e-6 * expected.square().mean()


def test_silence_where_there_is_no_pitch():
    train = PulseTrain(24000, 30)
    assert not train(torch.full((1, 10), 39.0)).any()
    assert not train(torch.full((1, 10), -5.0)).any()
    assert train(torch.full((1, 10), 41.0)).any()


@pytest.mark.parametrize("lookahead", [1, 6])
def test_it_streams(check_streaming, lookahead):
    train = PulseTrain(8000, 8, lookahead)
    assert (train.stride, train.latency) == (Fraction(1, 8), lookahead)
    check_streaming(train, melody(40, 3), tight=lookahead == 1)
    assert torch.equal(train(melody(20)), PulseTrain(8000, 8)(melody(20)))


def test_chunks_are_the_same_bits_as_the_whole():
    train, f0 = PulseTrain(24000, 300), melody(60)
    state = train.initial_state(2)
    parts = [train.step(part, state, last=end).data for part, end in ((f0[:, :7], False), (f0[:, 7:], True))]
    assert torch.equal(torch.cat(parts, dim=1), train(f0))


def test_the_phase_is_precise_however_long_the_stream():
    train = PulseTrain(24000, 300)
    state = train.initial_state(1)
    frames = 80 * 60 * 5  # five minutes
    f0 = torch.full((1, 8000), 123.4)
    for first in range(0, frames, 8000):
        train.step(Chunk.of(f0[:, : min(8000, frames - first)]), state)
    turns = (frames - 1) * 300 * float(torch.tensor(123.4)) / 24000
    assert 0 <= int(state.phase) < TURN
    assert abs(int(state.phase) / TURN - turns % 1) < 1e-4


def test_an_odd_hop_and_no_look_ahead_are_refused():
    with pytest.raises(ValueError, match="got hop=5, lookahead=1"):
        PulseTrain(8000, 5)
    with pytest.raises(ValueError, match="got hop=4, lookahead=0"):
        PulseTrain(8000, 4, 0)
