"""Streaming features equal the offline formulas of the projects whose checkpoints they feed."""

from __future__ import annotations

import math

import pytest
import torch
from torch import Tensor

from loquent.speech.audio.features import (
    MatchaMel,
    NemoLogMel,
    PreEmphasis,
    RunningMaxNormalize,
    RunningNormalize,
    WhisperLogMel,
    mel_filters,
    normalize_window,
    whisper_features,
)


def noise(rows: int, samples: int, seed: int = 0) -> Tensor:
    """Noise of changing loudness: a quiet start, a loud middle."""
    x = torch.randn(rows, samples, generator=torch.Generator().manual_seed(seed))
    return 0.3 * x * torch.linspace(0, math.pi, samples).sin().square()


def offline_whisper(samples: Tensor, n_mels: int) -> Tensor:
    """`log_mel_spectrogram` of openai/whisper up to its normalisation, (T, F)."""
    spectrum = torch.stft(samples, 400, 160, window=torch.hann_window(400), return_complex=True)
    power = spectrum[..., :-1].abs() ** 2
    return (mel_filters(201, n_mels, 16000, 8000).float().T @ power).clamp(min=1e-10).log10().T


def offline_nemo(samples: Tensor, n_mels: int) -> Tensor:
    """`FilterbankFeatures.forward` of NeMo without dither and normalisation, (T, F)."""
    emphasised = torch.cat([samples[:1], samples[1:] - 0.97 * samples[:-1]])
    spectrum = torch.stft(
        emphasised,
        512,
        160,
        400,
        window=torch.hann_window(400, periodic=False),
        center=True,
        pad_mode="constant",
        return_complex=True,
    )
    power = torch.view_as_real(spectrum).pow(2).sum(-1).sqrt().pow(2)
    return (mel_filters(257, n_mels, 16000).float().T @ power + 2**-24).log().T[: len(samples) // 160]


def offline_matcha(samples: Tensor, f_max: float | None) -> Tensor:
    """`mel_spectrogram` of Matcha-TTS with CosyVoice's 24 kHz options, (T, F)."""
    padded = torch.nn.functional.pad(samples[None, None], (720, 720), mode="reflect")[0, 0]
    spectrum = torch.stft(padded, 1920, 480, window=torch.hann_window(1920), center=False, return_complex=True)
    magnitude = (torch.view_as_real(spectrum).pow(2).sum(-1) + 1e-9).sqrt()
    return (mel_filters(961, 80, 24000, f_max).float().T @ magnitude).clamp(min=1e-5).log().T


@pytest.mark.parametrize("n_mels", [80, 128])
def test_filters_are_slaneys(n_mels):
    torchaudio = pytest.importorskip("torchaudio")
    expected = torchaudio.functional.melscale_fbanks(201, 0.0, 8000.0, n_mels, 16000, norm="slaney", mel_scale="slaney")
    torch.testing.assert_close(mel_filters(201, n_mels, 16000, 8000).float(), expected, rtol=0, atol=5e-7)
    # First triangles of Whisper's own mel_filters.npz.
    first = {80: [0.0, 0.02486259], 128: [0.0, 0.01237398]}[n_mels]
    assert mel_filters(201, n_mels, 16000)[:2, 0].tolist() == pytest.approx(first, abs=1e-7)


@pytest.mark.parametrize("n_mels", [80, 128])
@pytest.mark.parametrize("samples", [16000, 12345, 201])
def test_whisper_equals_offline(n_mels, samples):
    x = noise(1, samples)
    window = torch.nn.functional.pad(x, (0, 480_000 - samples))  # what Whisper pads a segment to
    expected = offline_whisper(window[0], n_mels)
    assert expected.shape == (3000, n_mels)
    torch.testing.assert_close(WhisperLogMel(n_mels)(window)[0], expected, rtol=1e-4, atol=1e-4)
    torch.testing.assert_close(WhisperLogMel(n_mels)(x)[0], expected[: samples // 160], rtol=1e-4, atol=1e-4)


def test_normalize_window_is_whispers_rule():
    log_mel = torch.stack([torch.linspace(-10, 2, 60).reshape(20, 3), torch.linspace(-10, -3, 60).reshape(20, 3)])
    for row, normalised in zip(log_mel, normalize_window(log_mel), strict=True):
        torch.testing.assert_close(normalised, (row.clamp(min=row.max().item() - 8) + 4) / 4)


def test_running_maximum_meets_the_window_rule_at_its_last_frame():
    log_mel = WhisperLogMel()(noise(2, 8000))
    running = RunningMaxNormalize()(log_mel)
    for t in (0, 10, log_mel.shape[1] - 1):
        torch.testing.assert_close(running[:, t], normalize_window(log_mel[:, : t + 1])[:, t])


@pytest.mark.parametrize("n_mels", [80, 128])
def test_nemo_equals_offline(n_mels):
    for samples in (16000, 12345, 200):
        x = noise(1, samples)
        torch.testing.assert_close(NemoLogMel(n_mels)(x)[0], offline_nemo(x[0], n_mels), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("f_max", [None, 8000.0])
def test_matcha_equals_offline(f_max):
    for samples in (24000, 12345, 721):
        x = noise(1, samples)
        torch.testing.assert_close(MatchaMel(f_max)(x)[0], offline_matcha(x[0], f_max), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize(
    ("module", "samples"),
    [
        (WhisperLogMel(80), 2000),
        (whisper_features(128), 2000),
        (PreEmphasis(), 50),
        (NemoLogMel(80), 2000),
        (MatchaMel(), 5000),
    ],
    ids=lambda value: type(value).__name__ if isinstance(value, torch.nn.Module) else None,
)
def test_laws(check_streaming, module, samples):
    check_streaming(module, noise(3, samples), shortest=0, rtol=1e-3, atol=1e-3)


def test_laws_of_running_maximum(check_streaming):
    check_streaming(RunningMaxNormalize(), 4 * noise(3, 40).reshape(3, 10, 4) - 3, shortest=0)
    check_streaming(RunningNormalize(4), 4 * noise(3, 40).reshape(3, 10, 4) - 3, shortest=0)


@pytest.mark.parametrize(
    ("module", "rate", "frame_ms", "lookahead"),
    [(WhisperLogMel(), 16000, 10, 200), (NemoLogMel(), 16000, 10, 198), (MatchaMel(), 24000, 20, 1199)],
    ids=["whisper", "nemo", "matcha"],
)
def test_declared_grid(module, rate, frame_ms, lookahead):
    assert module.stride == rate * frame_ms // 1000
    assert module.latency == lookahead


@pytest.mark.parametrize("module", [WhisperLogMel(), NemoLogMel(), MatchaMel()], ids=["whisper", "nemo", "matcha"])
def test_frames_of_short_recordings(module):
    hop = int(module.stride)
    for samples in (0, 1, hop - 1, hop, hop + 1):
        frames = module(noise(2, samples))
        assert frames.shape == (2, samples // hop, 80)
        assert frames.isfinite().all()


def test_silence_is_finite():
    assert whisper_features()(torch.zeros(1, 1600)).eq(-1.5).all()
    assert NemoLogMel()(torch.zeros(1, 1600)).isfinite().all()


def test_long_recordings_are_computed_in_pieces():
    x = noise(1, 2**19 + 16000)
    features = WhisperLogMel()(x)
    assert features.shape == (1, x.shape[1] // 160, 80)
    seam = 2**19 // 160
    around = WhisperLogMel()(x[:, 160 * (seam - 20) : 160 * (seam + 20)])
    torch.testing.assert_close(features[:, seam - 10 : seam + 10], around[:, 10:30], rtol=1e-4, atol=1e-4)
