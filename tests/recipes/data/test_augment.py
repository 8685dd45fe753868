"""What augmentation changes, and what it leaves alone."""

from __future__ import annotations

import math
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.data.augment import (
    OCTAVES,
    Augmenter,
    AugmentOptions,
    SpecAugment,
    SpecAugmentOptions,
    add_noise,
    add_pauses,
    change_level,
    change_speed,
    colored_noise,
    concatenate,
    equalize,
    mobile,
    narrowband,
    pad,
    reverberate,
    room_response,
    telephone,
    warp_frequencies,
)
from loquent.recipes.data.manifest import SAMPLE_RATE
from loquent.speech.audio.features import NemoLogMel
from loquent.speech.audio.files import read_audio

SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"

EVERYTHING = AugmentOptions(
    speed=(0.8, 1.25),
    pauses=0.5,
    noise=0.7,
    room=0.7,
    telephone=0.5,
    mobile=0.5,
    narrowband=0.5,
    equalizer_db=6.0,
    padding_s=(0.0, 0.2),
)


def tone(hertz: float, seconds: float = 1.0) -> np.ndarray:
    return (0.3 * np.sin(2 * np.pi * hertz * np.arange(round(seconds * SAMPLE_RATE)) / SAMPLE_RATE)).astype(np.float32)


def power(samples: np.ndarray) -> float:
    return float((samples.astype(np.float64) ** 2).mean())


def pitch(samples: np.ndarray) -> float:
    spectrum = np.abs(np.fft.rfft(samples * np.hanning(len(samples))))
    return float(spectrum.argmax() * SAMPLE_RATE / len(samples))


@settings(max_examples=15, deadline=None)
@given(seed=st.integers(0, 2**32 - 1), seconds=st.floats(0.05, 1.5))
def test_the_seed_decides_everything(seed: int, seconds: float) -> None:
    noise = colored_noise(SAMPLE_RATE // 2, 1.0, np.random.default_rng(1))
    augment, samples = Augmenter(EVERYTHING, [noise]), tone(440, seconds)
    first, second = (augment(samples, np.random.default_rng(seed)) for _ in range(2))
    np.testing.assert_array_equal(first, second)
    assert first.dtype == np.float32
    assert np.isfinite(first).all()
    assert np.abs(first).max() <= 0.991
    assert len(samples) / 1.26 <= len(first) <= len(samples) / 0.79 * (1 + 0.4 / 0.25) + 0.41 * SAMPLE_RATE


def test_options_of_nothing_change_nothing() -> None:
    nothing = AugmentOptions(speed=(1.0, 1.0), gain_db=(0.0, 0.0), padding_s=(0.0, 0.0))
    samples = tone(440)
    np.testing.assert_array_equal(Augmenter(nothing)(samples, np.random.default_rng(0)), samples)


@pytest.mark.parametrize("factor", [0.8, 0.93, 1.0, 1.2])
def test_speed_moves_pitch_and_length(factor: float) -> None:
    changed = change_speed(tone(500), factor)
    assert len(changed) == pytest.approx(SAMPLE_RATE / factor, abs=2)
    assert pitch(changed) == pytest.approx(500 * factor, abs=2)


def test_level() -> None:
    assert power(change_level(tone(300), 6)) == pytest.approx(power(tone(300)) * 10**0.6, rel=1e-3)
    assert np.abs(change_level(tone(300), 60)).max() == pytest.approx(0.99, abs=1e-4)
    assert change_level(np.zeros(5, np.float32), 6).tolist() == [0.0] * 5


@pytest.mark.parametrize("snr_db", [-5.0, 0.0, 20.0])
def test_noise_has_the_wanted_ratio_whatever_silence_there_is(snr_db: float) -> None:
    rng = np.random.default_rng(3)
    speech, noise = tone(400, 1.0), colored_noise(SAMPLE_RATE // 4, 0.0, rng)  # repeated as needed
    for samples in (speech, pad(speech, 0.4, 0.4)):
        added = add_noise(samples, noise, snr_db, rng) - samples
        assert 10 * np.log10(power(speech) / power(added)) == pytest.approx(snr_db, abs=0.6)


def test_silent_noise_and_silent_speech_stay_silent() -> None:
    rng = np.random.default_rng(0)
    np.testing.assert_array_equal(add_noise(tone(400), np.zeros(100, np.float32), 0.0, rng), tone(400))
    assert power(add_noise(np.zeros(4000, np.float32), tone(400), 0.0, rng)) == 0


@pytest.mark.parametrize("exponent", [0.0, 1.0, 2.0])
def test_colour_of_noise(exponent: float) -> None:
    spectrum = np.abs(np.fft.rfft(colored_noise(2**17, exponent, np.random.default_rng(0)))) ** 2
    octaves = [spectrum[2**k : 2 ** (k + 1)].mean() for k in (11, 12, 13, 14)]
    np.testing.assert_allclose(np.diff(np.log2(octaves)), -exponent, atol=0.15)


@pytest.mark.parametrize("rt60_s", [0.2, 0.5])
def test_rooms_ring_as_long_as_they_should(rt60_s: float) -> None:
    decays = []
    for seed in range(6):
        response = room_response(np.random.default_rng(seed), rt60_s).astype(np.float64)
        assert response[0] == pytest.approx(1.0, abs=0.3)  # the direct sound comes first, and wins
        assert len(response) == round(rt60_s * SAMPLE_RATE)
        remaining = 10 * np.log10(np.cumsum(response[::-1] ** 2)[::-1])  # Schroeder's integral
        late = slice(round(0.04 * SAMPLE_RATE), round(0.6 * rt60_s * SAMPLE_RATE))
        slope = np.polyfit(np.arange(len(response))[late] / SAMPLE_RATE, remaining[late], 1)[0]
        decays.append(-60 / slope)
    assert np.mean(decays) == pytest.approx(rt60_s, rel=0.2)


def test_images_and_tail_have_the_same_energy_where_they_meet() -> None:
    """The tail is a statistical continuation of the images: computing images further changes no energy."""
    ratios = []
    for seed in range(12):
        short, long = (room_response(np.random.default_rng(seed), 0.4, exact_s) for exact_s in (0.03, 0.06))
        window = slice(round(0.03 * SAMPLE_RATE), round(0.06 * SAMPLE_RATE))
        ratios.append(middle_power(long[window]) / middle_power(short[window]))
    assert np.exp(np.mean(np.log(ratios))) == pytest.approx(1.0, abs=0.3)


def middle_power(samples: np.ndarray) -> float:
    """Between 500 and 3000 Hz: images are all positive, so together they have more of the lowest frequencies."""
    spectrum, hertz = np.abs(np.fft.rfft(samples)) ** 2, np.fft.rfftfreq(len(samples), 1 / SAMPLE_RATE)
    return float(spectrum[(hertz > 500) & (hertz < 3000)].sum())


def test_reverberation_keeps_length_and_start() -> None:
    click = np.zeros(1000, np.float32)
    click[100] = 1
    response = np.array([1.0, 0.5, 0.25], np.float32)
    wet = reverberate(click, response)
    assert len(wet) == 1000
    np.testing.assert_allclose(wet[99:104], [0, 1, 0.5, 0.25, 0], atol=1e-6)
    assert len(reverberate(np.zeros(0, np.float32), response)) == 0


def test_narrowband_is_what_8_khz_can_hold() -> None:
    assert power(narrowband(tone(3000))) == pytest.approx(power(tone(3000)), rel=0.02)
    assert power(narrowband(tone(5000))) < 1e-3 * power(tone(5000))
    assert len(narrowband(tone(1000, 0.1001))) == len(tone(1000, 0.1001))
    augment = Augmenter(AugmentOptions(speed=(1.0, 1.0), padding_s=(0.0, 0.0), narrowband=1.0))
    heard = augment(tone(5000), np.random.default_rng(0))
    assert power(heard) < 1e-3 * power(tone(5000))


@pytest.mark.parametrize("line", [telephone, mobile])
def test_a_telephone_passes_the_voice_band_only(line: Callable[[np.ndarray], np.ndarray]) -> None:
    kept = power(line(tone(1000))) / power(tone(1000))
    assert kept == pytest.approx(1, abs=0.1)
    for hertz in (60.0, 3900.0, 6000.0):
        assert power(line(tone(hertz))) < 0.02 * power(tone(hertz))
    assert len(line(tone(1000, 0.1))) == round(0.1 * SAMPLE_RATE)
    assert len(line(tone(1000, 0.1)[:-7])) == round(0.1 * SAMPLE_RATE) - 7


def test_a_mobile_telephone_keeps_words_in_their_places_and_adds_its_noise() -> None:
    """The codec is one: what comes out is near what a plain line passes, but not the same."""
    sample = read_audio(SAMPLE, SAMPLE_RATE).samples
    plain, coded = telephone(sample), mobile(sample)
    shifts = [float(plain[400:-400] @ coded[400 + shift : len(coded) - 400 + shift]) for shift in range(-80, 81, 8)]
    assert abs(int(np.argmax(shifts)) - 10) <= 1  # within half a millisecond
    error = power(coded - plain) / power(plain)
    assert 0.003 < error < 0.3


def test_concatenation() -> None:
    ones = np.ones(1600, np.float32)
    joined = concatenate([ones, ones, ones], [0.1, 0.0])
    assert len(joined) == 3 * 1600 + 1600
    assert power(joined[1600:3200]) == 0
    assert joined[0] < 0.1  # faded in, so there is no click
    assert joined[800] == 1


@given(seed=st.integers(0, 2**32 - 1), seconds=st.floats(0, 3))
@settings(max_examples=30, deadline=None)
def test_pauses_take_nothing_away(seed: int, seconds: float) -> None:
    ones = np.ones(round(seconds * 16000), np.float32)
    paused = add_pauses(ones, (0.25, 0.9), (0.1, 0.4), np.random.default_rng(seed))
    heard = paused > 0
    assert heard.sum() == len(ones)
    edges = np.flatnonzero(np.diff(heard)) + 1
    lengths = np.diff(np.concatenate([[0], edges, [len(paused)]]))
    assert all(4000 <= length <= 14400 for length in lengths[:-1:2])
    assert all(1600 <= length <= 6400 for length in lengths[1::2])


@pytest.mark.parametrize("bounds", [(0.0, 0.5), (0.5, 0.2)])
def test_pieces_have_a_length(bounds: tuple[float, float]) -> None:
    with pytest.raises(ValueError, match="piece_s: expected two lengths above 0"):
        AugmentOptions(piece_s=bounds)


def test_spec_augment_masks_stripes_within_the_recording() -> None:
    options = SpecAugmentOptions(frequency_masks=1, frequency_width=10, time_masks=1, time_share=0.2)
    masking = SpecAugment(options)
    mel, length = torch.randn(64, 100, 40, generator=torch.Generator().manual_seed(0)), torch.full((64,), 100)
    length[1::2] = 50
    torch.manual_seed(0)
    masked = masking(mel, length)
    changed = masked != mel
    assert not changed[1::2, 50:].any()
    rows, columns = changed.all(2).sum(1), changed[::2].all(1).sum(1)
    assert rows.max() <= 20
    assert rows[1::2].max() <= 10
    assert 3 < rows[::2].float().mean() < 17
    assert columns.max() <= 10
    assert changed.any(2).any(1).float().mean() > 0.8
    at = changed.nonzero()[0]
    assert masked[tuple(at)] == pytest.approx(float(mel[at[0], : length[at[0]]].mean()), abs=1e-5)


def test_spec_augment_is_for_training() -> None:
    mel = torch.randn(2, 30, 8)
    assert SpecAugment(SpecAugmentOptions()).eval()(mel, torch.tensor([30, 10])) is mel


def test_a_warp_moves_formants_and_keeps_the_ends() -> None:
    features = NemoLogMel()
    time_s = torch.arange(16_000) / 16_000
    tones = [torch.sin(2 * math.pi * hertz * time_s) for hertz in (1000, 1150, 7000)]
    low, high, treble = features(torch.stack(tones))
    warped = warp_frequencies(torch.stack([low, low, treble]), torch.tensor([1.15, 1.0, 0.85]))
    assert int(warped[0, 50].argmax()) == int(high[50].argmax())
    torch.testing.assert_close(warped[1], low, rtol=1e-4, atol=1e-3)
    assert int(warped[2, 50].argmax()) < int(treble[50].argmax())
    flat = torch.ones(1, 3, 80)
    assert torch.equal(warp_frequencies(flat, torch.tensor([1.2])), flat)


def test_an_equalizer_gives_each_octave_its_gain() -> None:
    time_s = np.arange(16_000) / 16_000
    for hertz, gain_db in ((500, 6.0), (2000, -6.0), (707.1, 3.0)):
        gains = np.zeros(len(OCTAVES))
        gains[OCTAVES.index(500.0)], gains[OCTAVES.index(2000.0)] = 6.0, -6.0
        tone = np.sin(2 * np.pi * hertz * time_s).astype(np.float32)
        changed = equalize(tone, gains)
        level = 10 * np.log10(np.square(changed[4000:12000]).mean() / np.square(tone[4000:12000]).mean())
        assert level == pytest.approx(gain_db, abs=0.2)
    assert len(equalize(np.zeros(0, np.float32), gains)) == 0
