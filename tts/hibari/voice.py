"""The voice hibari: an English voice that streams, from the weights of hibari-tts."""

from __future__ import annotations

import hashlib
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import torch
from torch import Tensor, nn

from loquent.tts.acoustics import PhoneWindow, WordAcoustics
from loquent.tts.hibari.config import ALPHABET, HOP, N_FFT, PADDING, SAMPLE_RATE, UNIT, HibariConfig
from loquent.tts.hibari.decoder import Decoder
from loquent.tts.hibari.prosody import Prosody
from loquent.tts.hibari.text_encoder import TextEncoder
from loquent.tts.hibari.weights import find_voice, read_hibari
from loquent.tts.vocoder.harmonic_noise import HarmonicNoiseRenderer


class HibariVoice(nn.Module):
    """hibari-tts (Williams 2026) as a `VoiceModel`: 6.2 million weights, 24 kHz, frames of 12.5 ms.

    A phone's features have 128 numbers. The curves are pitch in Hz, below 40 where there is no voice, and energy.
    """

    sample_rate, hop_length = SAMPLE_RATE, HOP
    curve_size = 2
    alphabet: Mapping[str, int] = ALPHABET

    def __init__(self, config: HibariConfig, name: str = "hibari") -> None:
        super().__init__()
        inputs, bins = config.text.dim + self.curve_size, N_FFT // 2 + 1
        if (config.decoder.bins, config.decoder.inputs) != (bins, inputs):
            raise ValueError(
                f"expected {bins} bins and {inputs} inputs, got {config.decoder.bins} and {config.decoder.inputs}"
            )
        self.config, self.speakers, self.phone_size = config, (name,), config.text.dim
        self.text, self.prosody = TextEncoder(config.text), Prosody(config.prosody)
        self.renderer = HarmonicNoiseRenderer(Decoder(config.decoder), SAMPLE_RATE, HOP, N_FFT)
        self.fingerprint = repr(config)

    @classmethod
    def load(cls, path: str | Path) -> HibariVoice:
        """Read a voice of hibari-tts, such as `resolve("loquent/hibari")` finds.

        Args:
            path: its .onnx file, or a folder with one.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is damaged, or not of hibari-tts.
        """
        file = find_voice(Path(path))
        config, weights = read_hibari(file)
        try:
            voice = cls(config, file.stem)
            parts = {"text.": voice.text, "prosody.": voice.prosody, "decoder.": voice.renderer.decoder}
            for prefix, part in parts.items():
                mine = {name.removeprefix(prefix): w for name, w in weights.items() if name.startswith(prefix)}
                part.load_state_dict(mine)
        except (RuntimeError, ValueError) as error:
            raise ValueError(f"{file} is no voice of hibari-tts: {' '.join(str(error).split())}") from error
        digest = hashlib.sha256(voice.fingerprint.encode())
        for name in sorted(weights):
            digest.update(weights[name].numpy().tobytes())
        voice.fingerprint = digest.hexdigest()
        return voice.eval()

    @torch.inference_mode()
    def acoustics(self, windows: Sequence[PhoneWindow]) -> list[WordAcoustics]:
        """How words are to sound; each has heard all of its window, and nothing else.

        The words of one window cost little more than one of them, if they are asked for together.
        """
        heard: dict[tuple[tuple[int, ...], float], _Heard] = {}
        words = []
        for window in windows:
            key = tuple(window.phones), window.speed
            if key not in heard:
                heard[key] = self._hear(*key)
            words.append(self._word(window, heard[key]))
        return words

    def _hear(self, phones: Sequence[int], speed: float) -> _Heard:
        ids = torch.tensor([[PADDING, *phones, PADDING]], device=self.renderer.stft.taper.device)
        hidden = self.prosody.text(ids)
        units = self.prosody.durations(hidden, speed)[0]
        return _Heard(self.text(ids)[0], units, hidden.repeat_interleave(units, 1))

    def _word(self, window: PhoneWindow, heard: _Heard) -> WordAcoustics:
        features, units, stretched = heard
        begin = 0 if window.opens and window.begin == 0 else window.begin + 1
        end = window.end + 1 + (window.closes and window.end == len(window.phones))
        first, last = int(units[:begin].sum()), int(units[:end].sum())
        curves = self.prosody.pitch_and_energy(stretched, first, last)[0]
        return WordAcoustics(features[begin:end], units[begin:end] * UNIT, curves)


class _Heard(NamedTuple):
    """What the networks make of a window: a feature of each phone, its units, and prosody's features of all units."""

    features: Tensor  # (P, C)
    units: Tensor  # (P,)
    stretched: Tensor  # (1, U, C')
