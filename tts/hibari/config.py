"""Sizes of hibari's networks, its units and its alphabet."""

from __future__ import annotations

from dataclasses import dataclass, field

SAMPLE_RATE = 24000  # Hz
HOP = 300  # samples of a frame: 80 frames a second
N_FFT = 1200
UNIT = 2  # frames of the unit that durations are rounded to, 25 ms
LONGEST_PHONE = 40  # units
PITCH_SCALE = 100.0  # Hz of the pitch that the network calls 1
PADDING = 0  # id of the phone around a sentence

# The phones of Kokoro-82M, which hibari learnt from, by their numbers there; those in between are no phones.
_RUNS = {
    1: ";:,.!?",
    9: '—…"()“” \u0303ʣʥʦʨᵝ\uab67AI',
    31: "O",
    33: "Q",
    35: "ST",
    39: "W",
    41: "Yᵊabcdef",
    50: "hijklmnopqrstuvwxyzɑɐɒæ",
    75: "βɔɕç",
    80: "ɖðʤə",
    85: "ɚɛɜ",
    90: "ɟ",
    92: "ɡ",
    99: "ɥ",
    101: "ɨɪʝ",
    110: "ɯɰŋɳɲɴø",
    118: "ɸθœ",
    123: "ɹ",
    125: "ɾɻ",
    128: "ʁɽʂʃʈʧ",
    135: "ʊʋ",
    138: "ʌɣɤ",
    142: "χʎ",
    147: "ʒʔ",
    156: "ˈˌː",
    162: "ʰ",
    164: "ʲ",
    169: "↓",
    171: "→↗↘",
    177: "ᵻ",
}
ALPHABET = {phone: first + index for first, run in _RUNS.items() for index, phone in enumerate(run)}


@dataclass(frozen=True)
class TextEncoderConfig:
    """A text encoder: embedding, ConvNeXt blocks, then one transformer layer applied ``passes`` times."""

    dim: int
    hidden: int
    passes: int
    phones: int = 178
    convolutions: int = 2
    kernel: int = 5
    heads: int = 2


@dataclass(frozen=True)
class ProsodyConfig:
    """Durations, pitch and energy: a text encoder, and ConvNeXt blocks over units of 25 ms."""

    text: TextEncoderConfig = TextEncoderConfig(dim=192, hidden=384, passes=6)
    dilations: tuple[int, ...] = (1, 2, 4, 8, 1, 2)
    hidden: int = 384
    kernel: int = 7


@dataclass(frozen=True)
class DecoderConfig:
    """Frames of ``inputs`` numbers to ``bins`` · 5 spectral parts."""

    inputs: int = 130
    dim: int = 256
    hidden: int = 768
    blocks: int = 8
    kernel: int = 7
    bins: int = N_FFT // 2 + 1


@dataclass(frozen=True)
class HibariConfig:
    """The three networks of a voice."""

    text: TextEncoderConfig = TextEncoderConfig(dim=128, hidden=256, passes=4)
    prosody: ProsodyConfig = field(default_factory=ProsodyConfig)
    decoder: DecoderConfig = field(default_factory=DecoderConfig)
