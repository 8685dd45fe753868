"""Augmentation of recordings (numpy, 16 kHz, float32 of shape (N,)) and of log-mel features (torch).

Everything random is drawn from a generator that the caller gives, so a training run can be repeated sample by sample.
"""

from __future__ import annotations

import io
from collections.abc import Callable, Sequence
from dataclasses import dataclass

import numpy as np
import soundfile
import torch
from torch import Tensor, nn

from loquent.recipes.data.manifest import SAMPLE_RATE
from loquent.speech.audio.features import mel_edges
from loquent.speech.audio.resample import resample

OCTAVES = (62.5, 125.0, 250.0, 500.0, 1000.0, 2000.0, 4000.0, 8000.0)  # Hz
SPEED_OF_SOUND = 343.0  # m/s


@dataclass(frozen=True)
class AugmentOptions:
    """How often each change is made to a recording, and between which bounds. Probabilities 0 switch changes off.

    Raises:
        ValueError: pieces without length.
    """

    speed: tuple[float, float] = (0.9, 1.1)  # resampled: tempo, pitch and formants move together
    pauses: float = 0.0  # probability of silence within: pieces sound as words do that are said, or cut out, alone
    piece_s: tuple[float, float] = (0.25, 0.9)  # between two pauses
    pause_s: tuple[float, float] = (0.1, 0.4)
    gain_db: tuple[float, float] = (-10.0, 6.0)
    noise: float = 0.0  # probability
    noise_snr_db: tuple[float, float] = (5.0, 30.0)
    noises: str | None = None  # folder or zip of recordings; coloured noise alone without
    noises_kept_back: str | None = None  # such as "*/5-*": names of those to measure with
    room: float = 0.0  # probability of a simulated room
    room_rt60_s: tuple[float, float] = (0.15, 0.6)
    telephone: float = 0.0  # probability of a telephone line
    mobile: float = 0.0  # share of the telephone lines that are coded as mobile ones are
    narrowband: float = 0.0  # probability of 8 kHz, for the rest of the recordings
    equalizer_db: float = 0.0  # gain or loss of each octave, at most: another microphone
    padding_s: tuple[float, float] = (0.0, 0.3)  # silence added before, and after

    def __post_init__(self) -> None:
        if not 0 < self.piece_s[0] <= self.piece_s[1]:
            raise ValueError(f"piece_s: expected two lengths above 0, the lower first, got {self.piece_s}")


class Augmenter:
    """All changes of `AugmentOptions` in the order in which they happen to sound: mouth, room, noise, line, level."""

    def __init__(self, options: AugmentOptions, noises: Sequence[np.ndarray] = ()) -> None:
        self.options, self.noises = options, noises

    def __call__(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """Change a recording (N,); returns another of another length."""
        return self.transmit(self.speak(samples, rng), rng)

    def speak(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What changes at the mouth: speed, and silence within and around. Returns another length."""
        options = self.options
        samples = change_speed(samples, rng.uniform(*options.speed))
        if options.pauses and rng.random() < options.pauses:
            samples = add_pauses(samples, options.piece_s, options.pause_s, rng)
        return pad(samples, rng.uniform(*options.padding_s), rng.uniform(*options.padding_s))

    def transmit(self, samples: np.ndarray, rng: np.random.Generator) -> np.ndarray:
        """What changes on the way from the mouth. The length stays."""
        options = self.options
        if rng.random() < options.room:
            samples = reverberate(samples, room_response(rng, rng.uniform(*options.room_rt60_s)))
        if rng.random() < options.noise:
            noise = self.noises[int(rng.integers(len(self.noises)))] if self.noises and rng.random() < 0.8 else None
            noise = colored_noise(len(samples), rng.uniform(0, 2), rng) if noise is None else noise
            samples = add_noise(samples, noise, rng.uniform(*options.noise_snr_db), rng)
        if options.equalizer_db:
            samples = equalize(samples, rng.uniform(-options.equalizer_db, options.equalizer_db, len(OCTAVES)))
        if rng.random() < options.telephone:
            line = mobile if options.mobile and rng.random() < options.mobile else telephone
            samples = line(samples)
        elif options.narrowband and rng.random() < options.narrowband:
            samples = narrowband(samples)
        return change_level(samples, rng.uniform(*options.gain_db))


def change_speed(samples: np.ndarray, factor: float) -> np.ndarray:
    """Play ``factor`` times as fast, to the per cent: N / factor samples, pitch and formants times the factor."""
    rate = 160 * round(100 * factor)
    return resample(samples, rate, SAMPLE_RATE)


def change_level(samples: np.ndarray, gain_db: float) -> np.ndarray:
    """Amplify, but never beyond full scale."""
    gain = 10 ** (gain_db / 20)
    peak = float(np.abs(samples).max(initial=0.0))
    return (samples * min(gain, 0.99 / peak if peak else gain)).astype(np.float32)


def pad(samples: np.ndarray, before_s: float, after_s: float) -> np.ndarray:
    """Add silence."""
    return np.pad(samples, (round(before_s * SAMPLE_RATE), round(after_s * SAMPLE_RATE)))


def add_pauses(
    samples: np.ndarray, piece_s: tuple[float, float], pause_s: tuple[float, float], rng: np.random.Generator
) -> np.ndarray:
    """Put silence into a recording at random places, as far apart and as long as between the bounds."""
    pieces, rest = [], samples
    while len(rest) > (length := round(rng.uniform(*piece_s) * SAMPLE_RATE)):
        pieces.append(rest[:length])
        rest = rest[length:]
    return concatenate([*pieces, rest], [rng.uniform(*pause_s) for _ in pieces])


def concatenate(clips: Sequence[np.ndarray], gaps_s: Sequence[float]) -> np.ndarray:
    """Join clips with silence between them; gap i follows clip i, and the last clip has none.

    The edges of clips are faded over 5 ms: a step in the waveform would be a click, which tells where words begin.
    """
    fade = SAMPLE_RATE // 200
    parts = []
    for clip, gap in zip(clips, [*gaps_s, 0.0], strict=True):
        ramp = np.minimum(1, np.arange(1, len(clip) + 1) / fade)
        parts += [clip * ramp * ramp[::-1], np.zeros(round(gap * SAMPLE_RATE))]
    return np.concatenate(parts).astype(np.float32)


def add_noise(samples: np.ndarray, noise: np.ndarray, snr_db: float, rng: np.random.Generator) -> np.ndarray:
    """Add a stretch of ``noise``, repeated if it is short, at a ratio of powers.

    The power of speech is measured where it is loud (the mean over the upper half of its 20 ms frames), so that silence
    around the words does not change how noisy they are.
    """
    start = int(rng.integers(len(noise)))
    stretch = np.take(noise, np.arange(start, start + len(samples)), mode="wrap")
    noise_power = _power(stretch)
    if noise_power < 1e-12:
        return samples
    frames = samples[: len(samples) // 320 * 320].reshape(-1, 320)
    powers = np.sort((frames.astype(np.float64) ** 2).mean(axis=1)) if len(frames) else np.zeros(1)
    speech_power = powers[len(powers) // 2 :].mean()
    scale = np.sqrt(speech_power / noise_power / 10 ** (snr_db / 10))
    return (samples + scale * stretch).astype(np.float32)


def colored_noise(length: int, exponent: float, rng: np.random.Generator) -> np.ndarray:
    """Gaussian noise whose power falls as frequency to the ``exponent``: 0 is white, 1 pink, 2 brown."""
    white = rng.standard_normal(_fast(length))  # on a circle: any stretch of it is as good as another
    return _filtered(white, lambda hertz: np.maximum(hertz, 20.0) ** (-exponent / 2))[:length].astype(np.float32)


def room_response(rng: np.random.Generator, rt60_s: float, exact_s: float = 0.03) -> np.ndarray:
    """Impulse response of a random shoebox room with a talker 0.3 … 2.5 m from the microphone.

    The first ``exact_s`` come from the image-source method (Allen and Berkley 1979), all walls alike. After it images
    are so many that their sum is Gaussian noise: their density is 4 π c³ t² / V per second, each has the power
    1 / (c t)², and reflections take 60 dB in ``rt60_s``, hence the power 4 π c / V · 10^(-6 t / rt60) of the tail.

    Returns:
        float32 (N,). The direct sound is the first sample, with gain 1: words stay where they were.
    """
    size = rng.uniform((3.0, 2.5, 2.3), (8.0, 6.0, 3.5))  # m
    microphone = rng.uniform(0.2, 0.8, 3) * size
    direction = rng.standard_normal(3)
    offset = direction / np.linalg.norm(direction) * rng.uniform(0.3, 2.5)
    talker = np.clip(microphone + offset, 0.1, size - 0.1)
    volume = size.prod()
    surface = 2 * (size[0] * size[1] + size[0] * size[2] + size[1] * size[2])
    absorption = 1 - np.exp(-24 * np.log(10) * volume / (SPEED_OF_SOUND * surface * rt60_s))  # Eyring
    reflection = np.sqrt(1 - absorption)

    direct = max(float(np.linalg.norm(talker - microphone)), 0.1)
    reach = direct + exact_s * SPEED_OF_SOUND  # m
    images, bounces = [], []
    for axis in range(3):
        orders = np.arange(-int(reach / size[axis]) - 1, int(reach / size[axis]) + 2)
        mirrored = orders % 2 == 1
        position = orders * size[axis] + np.where(mirrored, size[axis] - talker[axis], talker[axis])
        images.append(position - microphone[axis])
        bounces.append(np.abs(orders))
    squares = images[0][:, None, None] ** 2 + images[1][None, :, None] ** 2 + images[2][None, None, :] ** 2
    distances = np.sqrt(squares).ravel()
    orders = (bounces[0][:, None, None] + bounces[1][None, :, None] + bounces[2][None, None, :]).ravel()
    near = distances < reach

    length = max(round(rt60_s * SAMPLE_RATE), 1)
    response = np.zeros(length + 1)
    delays = np.maximum(distances[near] - direct, 0) / SPEED_OF_SOUND * SAMPLE_RATE
    gains = direct / np.maximum(distances[near], 0.1) * reflection ** orders[near]
    whole = np.minimum(delays.astype(int), length - 1)
    part = np.minimum(delays - whole, 1.0)
    np.add.at(response, whole, gains * (1 - part))  # linear interpolation between samples
    np.add.at(response, whole + 1, gains * part)

    times = np.arange(length) / SAMPLE_RATE + direct / SPEED_OF_SOUND
    power = 4 * np.pi * SPEED_OF_SOUND / (volume * SAMPLE_RATE) * 10 ** (-6 * times / rt60_s) * direct**2
    late = np.arange(length) >= exact_s * SAMPLE_RATE
    response[:-1] += np.where(late, np.sqrt(power) * rng.standard_normal(length), 0)
    return response[:-1].astype(np.float32)


def reverberate(samples: np.ndarray, response: np.ndarray) -> np.ndarray:
    """Convolve and keep the length: what rings on after the end is cut."""
    size = _fast(len(samples) + len(response) - 1)
    wet = np.fft.irfft(np.fft.rfft(samples, size) * np.fft.rfft(response, size), size)
    return wet[: len(samples)].astype(np.float32)


def equalize(samples: np.ndarray, gains_db: np.ndarray) -> np.ndarray:
    """Amplify by gains in dB at `OCTAVES`, and by what is linear between them on a logarithmic scale of frequencies."""

    def gain(hertz: np.ndarray) -> np.ndarray:
        return 10 ** (np.interp(np.log2(np.maximum(hertz, 1.0)), np.log2(OCTAVES), gains_db) / 20)

    return _filtered(samples, gain).astype(np.float32)


def narrowband(samples: np.ndarray) -> np.ndarray:
    """Sampled at 8 kHz: what is above 4 kHz is gone."""
    return resample(resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2), SAMPLE_RATE // 2, SAMPLE_RATE)[: len(samples)]


def telephone(samples: np.ndarray) -> np.ndarray:
    """A telephone line: 300 … 3400 Hz, sampled at 8 kHz in 8 bits of mu-law (ITU-T G.711)."""
    narrow = _narrow_line(samples)
    levels = np.sign(narrow) * np.log1p(255 * np.abs(narrow)) / np.log(256)
    levels = np.round(levels * 127) / 127
    decoded = np.sign(levels) * np.expm1(np.abs(levels) * np.log(256)) / 255
    return resample(decoded, SAMPLE_RATE // 2, SAMPLE_RATE)[: len(samples)]


def mobile(samples: np.ndarray) -> np.ndarray:
    """A mobile telephone: the same band, coded at 13 kbit/s (GSM 06.10 full rate)."""
    file = io.BytesIO()
    soundfile.write(file, _narrow_line(samples), SAMPLE_RATE // 2, format="WAV", subtype="GSM610")
    file.seek(0)
    decoded = soundfile.read(file, dtype="float32")[0]  # whole blocks
    wide = resample(decoded, SAMPLE_RATE // 2, SAMPLE_RATE)[: len(samples)]
    return np.pad(wide, (0, len(samples) - len(wide)))


def _narrow_line(samples: np.ndarray) -> np.ndarray:
    narrow = resample(samples, SAMPLE_RATE, SAMPLE_RATE // 2)
    return np.clip(_filtered(narrow, _line, SAMPLE_RATE // 2), -1, 1)


def _line(hertz: np.ndarray) -> np.ndarray:
    return np.clip((hertz - 200) / 100, 0, 1) * np.clip((3600 - hertz) / 200, 0, 1)


def _filtered(samples: np.ndarray, gain: Callable[[np.ndarray], np.ndarray], rate: int = SAMPLE_RATE) -> np.ndarray:
    """Multiply the spectrum by the gain at each frequency in Hz: no delay."""
    size = _fast(len(samples))
    return np.fft.irfft(np.fft.rfft(samples, size) * gain(np.fft.rfftfreq(size, 1 / rate)), size)[: len(samples)]


def _fast(length: int) -> int:
    """The power of two that holds so many samples: a prime number of them takes the transform ten times as long."""
    return 1 << max(length - 1, 1).bit_length()


def _power(samples: np.ndarray) -> float:
    return float(np.square(samples, dtype=np.float64).mean()) if len(samples) else 0.0


@dataclass(frozen=True)
class SpecAugmentOptions:
    """Masks of SpecAugment (Park et al. 2019), and before them other voices. Zeros switch things off."""

    frequency_masks: int = 2
    frequency_width: int = 20  # mel bins, at most
    time_masks: int = 5
    time_share: float = 0.05  # of the utterance, at most, for each mask
    warp: float = 0.0  # most by which a voice's formants are scaled, up or down: a shorter or longer vocal tract


class SpecAugment(nn.Module):
    """Replaces random stripes of log-mel features by the utterance's mean, in training only."""

    def __init__(self, options: SpecAugmentOptions) -> None:
        super().__init__()
        self.options = options

    def forward(self, mel: Tensor, length: Tensor) -> Tensor:
        """Mask (B, T, F) whose rows have ``length`` (B,) frames. Draws from torch's default generator."""
        if not self.training:
            return mel
        options, (frames, bins) = self.options, mel.shape[1:]
        if options.warp:
            mel = warp_frequencies(mel, 1 + options.warp * (2 * torch.rand(len(mel), device=mel.device) - 1))
        valid = torch.arange(frames, device=mel.device) < length[:, None]
        times = _stripes(options.time_masks, (options.time_share * length).long(), length, frames)
        width, height = torch.full_like(length, options.frequency_width), torch.full_like(length, bins)
        masked = times[:, :, None] | _stripes(options.frequency_masks, width, height, bins)[:, None, :]
        mean = (mel.mean(-1) * valid).sum(-1) / length.clamp_min(1)
        return torch.where(masked & valid[..., None], mean[:, None, None].to(mel.dtype), mel)


def warp_frequencies(mel: Tensor, factor: Tensor) -> Tensor:
    """Scale the frequencies of log-mel features by a factor of each row: (B, T, F) of 16 kHz audio, (B,).

    Up to 4800 Hz; what lies above is stretched or squeezed to end where it did. Source: VTLP, Jaitly and Hinton 2013.
    """
    top, corner = SAMPLE_RATE / 2, 4800.0
    centres = mel_edges(mel.shape[2], top)[1:-1].to(mel.device)
    scale = factor.double()[:, None]
    edge = corner * scale.clamp_max(1.0)  # in the result; the lower of two straight lines ends here
    source = torch.where(centres < edge, centres / scale, top - (top - edge / scale) * (top - centres) / (top - edge))
    upper = torch.searchsorted(centres, source.contiguous()).clamp(1, mel.shape[2] - 1)
    share = ((source - centres[upper - 1]) / (centres[upper] - centres[upper - 1])).clamp(0, 1).to(mel.dtype)
    rows = torch.arange(len(mel), device=mel.device)[:, None]
    below, above = (mel.transpose(1, 2)[rows, at] for at in (upper - 1, upper))
    return (below + share[..., None] * (above - below)).transpose(1, 2)


def _stripes(count: int, widest: Tensor, length: Tensor, size: int) -> Tensor:
    """Union of ``count`` random stripes for each row, bool (B, size)."""
    shape = (len(length), count)
    width = (torch.rand(shape, device=length.device) * (widest[:, None] + 1)).long()
    start = (torch.rand(shape, device=length.device) * (length[:, None] - width + 1).clamp_min(1)).long()
    at = torch.arange(size, device=length.device)
    return ((at >= start[..., None]) & (at < (start + width)[..., None])).any(1)
