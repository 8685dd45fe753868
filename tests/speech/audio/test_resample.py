"""Resampling: true to the band-limited signal, free of aliases, the same in any packets, complete at both ends."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.audio.errors import AudioError
from loquent.speech.audio.resample import Resampler, resample, resample_blocks

RATES = [(48000, 16000), (44100, 16000), (8000, 16000), (11025, 16000), (22050, 24000), (16000, 44100), (96000, 16000)]
rates = st.sampled_from([4000, 8000, 11025, 12000, 16000, 22050, 24000, 32000, 44100, 48000, 88200, 96000, 192000])


def sine(frequency: float, rate: int, seconds: float = 0.5) -> np.ndarray:
    """Sine with raised-cosine ends, so that it is band-limited over its whole length."""
    t = np.arange(int(rate * seconds)) / rate
    return np.sin(2 * np.pi * frequency * t) * envelope(t, seconds)


def envelope(t: np.ndarray, seconds: float) -> np.ndarray:
    return np.sin(np.pi * np.clip(t / seconds, 0, 1)) ** 4


def level_db(x: np.ndarray) -> float:
    return 10 * math.log10(np.mean(np.square(x, dtype=np.float64)) + 1e-30)


@pytest.mark.parametrize(("orig", "new"), RATES)
@pytest.mark.parametrize("place", [0.02, 0.5, 0.89])
def test_pass_band(orig, new, place):
    frequency = place * min(orig, new) / 2
    expected = sine(frequency, new)
    got = resample(sine(frequency, orig), orig, new)[: len(expected)]
    assert level_db(got - expected[: len(got)]) - level_db(expected) < -90


@pytest.mark.parametrize(("orig", "new"), [(48000, 16000), (44100, 16000), (96000, 16000), (48000, 44100)])
@pytest.mark.parametrize("place", [1.001, 1.05, 1.5, 2.0])
def test_stop_band(orig, new, place):
    frequency = min(place * new / 2, 0.499 * orig)
    tone = sine(frequency, orig, 2.0)
    assert level_db(resample(tone, orig, new)) - level_db(tone) < -90


@pytest.mark.parametrize(("orig", "new"), [(8000, 16000), (16000, 44100), (16000, 24000)])
def test_no_images_when_the_rate_rises(orig, new):
    got = resample(sine(0.85 * orig / 2, orig), orig, new)
    spectrum = np.abs(np.fft.rfft(got * np.hanning(len(got)))) ** 2
    frequency = np.fft.rfftfreq(len(got), 1 / new)
    assert 10 * math.log10(spectrum[frequency > orig / 2].sum() / spectrum.sum()) < -90


def test_agrees_with_torchaudio():
    functional = pytest.importorskip("torchaudio").functional
    x = np.random.default_rng(0).standard_normal(4410).astype(np.float32)
    smooth = resample(resample(x, 44100, 12000), 12000, 44100)  # within the pass band of both
    theirs = functional.resample(torch.from_numpy(smooth), 44100, 16000, lowpass_filter_width=64, rolloff=0.95)
    np.testing.assert_allclose(resample(smooth, 44100, 16000)[100:-100], theirs.numpy()[100:-100], atol=2e-3)


@given(orig=rates, new=rates, samples=st.integers(0, 3000))
@settings(max_examples=30, deadline=None, database=None)
def test_length(orig, new, samples):
    assert len(resample(np.zeros(samples, np.float32), orig, new)) == -(-samples * new // orig)


@pytest.mark.parametrize(("orig", "new"), RATES)
def test_nothing_is_lost_at_the_end(orig, new):
    x = np.zeros(1000, np.float32)
    x[-1] = 1.0
    got = resample(x, orig, new)
    assert abs(got[math.floor(999 * new / orig)]) > 0.5 * min(1, new / orig)


@pytest.mark.parametrize(("orig", "new"), [*RATES, (16000, 16000), (44100, 48000)])
def test_laws(check_streaming, orig, new):
    x = torch.randn(3, 3000, generator=torch.Generator().manual_seed(0))
    check_streaming(Resampler(orig, new), x, shortest=0, atol=1e-4, examples=8)


def test_stride_is_exact():
    assert float(Resampler(44100, 16000).stride * 16000) == 44100
    assert Resampler(48000, 16000).stride == 3


def test_whole_recordings_in_blocks():
    x = np.random.default_rng(0).standard_normal((25 * 8000, 2)).astype(np.float32)
    got = resample(x, 8000, 12000)
    assert got.shape == (25 * 12000, 2)
    assert got.dtype == np.float32
    expected = Resampler(8000, 12000)(torch.from_numpy(x.T.copy())).T.numpy()
    np.testing.assert_allclose(got, expected, atol=1e-5)


@pytest.mark.parametrize("rate", [8000, 12000, 44100])
def test_block_by_block_is_the_whole(rate):
    x = np.random.default_rng(0).standard_normal(30_000).astype(np.float32)
    got = list(resample_blocks(np.split(x, [1, 500, 500, 20_000]), rate, 12000, "noise"))
    np.testing.assert_allclose(np.concatenate(got), resample(x, rate, 12000), atol=1e-5)


def test_equal_rates_change_nothing():
    x = np.random.default_rng(0).standard_normal(100).astype(np.float32)
    assert resample(x, 22050, 22050) is x
    assert torch.equal(Resampler(22050, 22050)(torch.from_numpy(x)[None])[0], torch.from_numpy(x))


def test_odd_ratios():
    assert len(resample(np.zeros(18900, np.float32), 18900, 16000)) == 16000
    with pytest.raises(ValueError, match="16000:44101"):
        Resampler(44101, 16000)
    with pytest.raises(ValueError, match="3999 Hz is outside"):
        Resampler(3999, 16000)
    with pytest.raises(AudioError, match=r"'a.wav' cannot be resampled: sample rate 3999 Hz is outside"):
        next(resample_blocks(iter([]), 3999, 16000, "'a.wav'"))
