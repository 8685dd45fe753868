"""Training of the vocoder: mel spectrograms, pitch and energy to spectra whose phases are those of the recordings."""

from __future__ import annotations

import math
import random
from collections.abc import Callable, Mapping, Sequence

import torch
from torch import Tensor, nn

from loquent.recipes.voice.corpus import Corpus
from loquent.recipes.voice.data import Utterance
from loquent.recipes.voice.teacher import RATE
from loquent.tts.flow_voice.vocoder import BINS, HOP, N_FFT, Vocoder
from loquent.tts.hibari.voice import HibariVoice
from loquent.tts.vocoder.harmonic_noise import LOUDEST, PARTS, harmonic_noise_spectrum
from loquent.tts.vocoder.stft import STFT

CROP = 96  # mel frames of an example
WARM = 16  # at the start of a crop that is not counted: the layers miss what came before
FAINT = 3e-6  # powers are compared down to this, what is left of them in mel frames
QUIET = 1e-4  # power below which compression ends
BAND = 12  # bins, 240 Hz: the power of noise is known of bands, not of bins
# Noise whose real and imaginary parts are normal in each frame, of power 2, has a quarter of that once frames are
# overlapped and taken apart again.
NOISE_POWER = 0.5
MEDIAN = math.log(2)  # of the power of such noise, over the mean

Mels = Callable[[Utterance], Tensor]


class VocoderPart:
    """Crops of recordings.

    Args:
        net: what is trained. corpus, valid: utterances with samples.
        mels: the normalised mel frames (2 U, 80) that the vocoder is to hear for an utterance.
    """

    judged_by = "spectral"

    def __init__(self, net: Vocoder, corpus: Corpus, valid: Corpus, mels: Mels, *, seed: int) -> None:
        self.net, self.corpus, self.valid, self.mels, self.seed = net, corpus, valid, mels, seed
        self.module: nn.Module = _Loss(net)
        self._heard: dict[int, Tensor] = {}  # mel frames by number, in half precision: they do not change

    def lengths(self) -> list[float]:
        """Seconds of a crop."""
        return [CROP * HOP / RATE] * len(self.corpus)

    def collate(self, items: Sequence[int], epoch: int) -> dict[str, Tensor]:
        """A crop of each utterance."""
        rows = []
        for item in items:
            rng = random.Random(f"{self.seed} {epoch} {item}")
            utterance = self.corpus[item]
            if item not in self._heard:
                self._heard[item] = self.mels(utterance).half()
            row = example(utterance, self._heard[item].float())
            start = rng.randrange(-CROP // 4, max(len(row["counted"]) - CROP // 2, 1))
            rows.append(_crop(row, max(start, 0)))
        return {name: torch.stack([row[name] for row in rows]) for name in rows[0]}

    def evaluate(self) -> dict[str, float]:
        """The terms of the loss."""
        sums: dict[str, float] = {}
        device = next(self.net.parameters()).device
        numbers = range(0, len(self.valid), 2)
        for number in numbers:
            row = example(self.valid[number], self.mels(self.valid[number]))
            _, figures = self.module({name: value[None].to(device) for name, value in row.items()})
            for name, value in figures.items():
                sums[name] = sums.get(name, 0.0) + float(value) / len(numbers)
        return {"spectral": sums["complex"] + sums["log_power"] / 4 + sums["log_bands"] / 4} | sums


def example(row: Utterance, mel: Tensor) -> dict[str, Tensor]:
    """What the vocoder hears of an utterance, and the spectra of the recording and of its pulses."""
    assert row.samples is not None
    assert row.pulses is not None
    inputs = torch.cat([mel, row.pitch[:, None], row.energy[:, None]], dim=1)
    source = STFT(N_FFT, HOP, torch.hann_window(N_FFT) / (N_FFT / 4))(row.pulses[None])[0]
    return {
        "inputs": inputs,
        "target": STFT(N_FFT, HOP)(row.samples[None])[0],
        "source": source,
        "counted": torch.ones(len(inputs), dtype=torch.bool),
    }


def _crop(row: dict[str, Tensor], start: int) -> dict[str, Tensor]:
    """CROP frames from ``start``; what lies beyond the end is zero, and not counted."""
    crop = {}
    for name, value in row.items():
        part = value[start : start + CROP]
        room = torch.zeros(CROP - len(part), *part.shape[1:], dtype=part.dtype)
        crop[name] = torch.cat([part, room])
    if start:
        crop["counted"][:WARM] = False
    return crop


def warm_start(net: Vocoder) -> None:
    """Take the layers of hibari's decoder, all but the first one, which hears other things.

    Its noise comes from phases that look random. What has such phases cannot be learnt from mel frames: it begins as
    noise, half of it.

    Raises:
        ValueError: the layers are of other sizes.
    """
    from hibari.voices import DEFAULT, voice_path

    decoder = HibariVoice.load(voice_path(DEFAULT)).renderer.decoder
    theirs = {name: value for name, value in decoder.state_dict().items() if not name.startswith("stages.1.")}
    own = {name: value for name, value in net.state_dict().items() if name.startswith("stages.1.")}
    for name in ("stages.4.weight", "stages.4.bias"):
        parts = theirs[name].clone().unflatten(0, (PARTS, BINS))
        parts[2] = parts[3]
        if name.endswith("bias"):
            parts[2:4] -= 0.5
        theirs[name] = parts.flatten(0, 1)
    try:
        net.load_state_dict(theirs | own)
    except RuntimeError as error:
        raise ValueError(f"the vocoder's layers differ from those of hibari's decoder: {error}") from error


class _Loss(nn.Module):
    """Errors of what can be known of a spectrum, its compressed complex values, and of its power with the noise."""

    def __init__(self, net: Vocoder) -> None:
        super().__init__()
        self.net = net

    def forward(self, batch: Mapping[str, Tensor]) -> tuple[Tensor, dict[str, Tensor]]:
        """See `example`."""
        parts = self.net(batch["inputs"])
        silent = parts.new_zeros(*parts.shape[:2], 2 * BINS)
        known = harmonic_noise_spectrum(parts, batch["source"], silent)
        breath = parts.unflatten(-1, (PARTS, BINS))[:, :, 2].clamp(max=LOUDEST)
        target, counted = batch["target"], batch["counted"][:, :, None].float()
        count = counted.sum().clamp(min=1) * BINS
        difference = _compressed(known) - _compressed(target)
        error = ((difference.real.abs() + difference.imag.abs()) * counted).sum() / count
        power, noise = known.real.square() + known.imag.square(), NOISE_POWER * (2 * breath).exp()
        wanted = target.real.square() + target.imag.square()
        levels = (_apart(power + MEDIAN * noise, wanted) * counted).sum() / count
        bands = (_apart(_banded(power + noise), _banded(wanted)) * counted).sum() / count * BAND
        figures = {"complex": error.detach(), "log_power": levels.detach(), "log_bands": bands.detach()}
        return error + levels / 4 + bands / 4, figures


def _banded(power: Tensor) -> Tensor:
    """(..., 601) to means of bands, (..., 50); the last bin is none's."""
    return power[..., : (BINS - 1) // BAND * BAND].unflatten(-1, (-1, BAND)).mean(-1)


def _apart(power: Tensor, wanted: Tensor) -> Tensor:
    return ((power + FAINT).log() - (wanted + FAINT).log()).abs()


def _compressed(x: Tensor) -> Tensor:
    """Magnitudes to the power 0.5, phases as they are."""
    power = x.real.square() + x.imag.square()
    return x * (power + QUIET) ** -0.25
