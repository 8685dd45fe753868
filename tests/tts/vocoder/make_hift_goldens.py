"""Makes the golden files of HiFT's parity tests with CosyVoice's own code (2 and 3); run by hand.

    PYTHONPATH=<checkout of FunAudioLLM/CosyVoice>:<folder with scipy> python tests/tts/vocoder/make_hift_goldens.py

writes `hift_cosyvoice2.safetensors` and `hift_cosyvoice3.safetensors` to tests/tts/vocoder/data, each with a tiny
vocoder, random weights under the names of a `hift.pt` (`weights.<name>`), and what upstream computes with them:

    mel                 (T, F)
    f0                  (T,)
    source, samples     (480 T,)
    early               3 only: (480 (T - 8),) what it gives when it knows that more is to come

Upstream's noise is replaced by `counter_noise` of seed 3, for 3 by what makes of it numbers between 0 and 1. Weights
are drawn so that frames with and without voice come one after another.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any

import torch
from cosyvoice.hifigan import generator as upstream
from cosyvoice.hifigan.f0_predictor import CausalConvRNNF0Predictor, ConvRNNF0Predictor
from safetensors.torch import save_file
from torch import Tensor

from loquent.kernels.counter_noise import counter_noise

DATA = Path(__file__).parent / "data"
SEED, FRAMES, MELS, HARMONICS, HOP = 3, 20, 8, 8, 480
SHAPE: dict[str, Any] = {
    "in_channels": MELS,
    "base_channels": 16,
    "nb_harmonics": HARMONICS,
    "sampling_rate": 24000,
    "upsample_rates": [8, 5, 3],
    "upsample_kernel_sizes": [16, 11, 7],
    "source_resblock_kernel_sizes": [7, 7, 11],
    "source_resblock_dilation_sizes": [[1, 3, 5], [1, 3, 5], [1, 3, 5]],
}


@torch.no_grad()
def make(number: int) -> Any:
    draw = torch.Generator().manual_seed(number)
    predictor = (ConvRNNF0Predictor if number == 2 else CausalConvRNNF0Predictor)(1, MELS, 12)
    kind = upstream.HiFTGenerator if number == 2 else upstream.CausalHiFTGenerator
    model = kind(f0_predictor=predictor, **SHAPE).eval()
    for name, value in sorted(model.state_dict().items()):
        noise = torch.randn(value.shape, generator=draw)
        if name.endswith("alpha"):
            value.copy_(1 + 0.3 * noise)
        elif name.endswith("original0"):
            value.copy_(0.7 + 0.2 * noise.abs())
        elif value.ndim == 1:
            value.copy_(0.1 * noise)
        else:
            value.copy_(noise / value[0].numel() ** 0.5)
    predictor.classifier.weight.mul_(600)
    predictor.classifier.bias.zero_()
    # In the middle of what it predicts F0, a magnitude, comes near 0.
    signed = predictor.classifier(predictor.condnet(mel()).transpose(1, 2))
    predictor.classifier.bias.fill_(-float(signed.median()))
    for value in model.state_dict().values():
        value.copy_(value.half().float())
    return model


def mel() -> Tensor:
    return torch.randn(1, MELS, FRAMES, generator=torch.Generator().manual_seed(9))


def noise() -> Tensor:
    """(1, N, harmonics + 1) normal."""
    values = counter_noise(torch.tensor([SEED]), torch.arange(FRAMES)[None], HOP * (HARMONICS + 1))
    return values.reshape(1, FRAMES * HOP, HARMONICS + 1)


RANDN_LIKE = torch.randn_like


def given_noise(x: Tensor) -> Tensor:
    return noise()[:, : x.shape[1]] if x.shape[2] > 1 else RANDN_LIKE(x)


@torch.no_grad()
def main() -> None:
    DATA.mkdir(exist_ok=True)
    for number in (2, 3):
        model = make(number)
        weights = {f"weights.{name}": value.half() for name, value in model.state_dict().items()}
        if number == 2:
            torch.randn_like = given_noise
        else:
            model.m_source.l_sin_gen.sine_waves = torch.special.ndtr(noise())
        samples, source = model.inference(mel())
        f0 = model.f0_predictor(mel().to(next(model.f0_predictor.parameters()).dtype)).float()
        goldens = {"mel": mel()[0].T, "f0": f0[0], "source": source[0, 0], "samples": samples[0]}
        if number == 3:
            goldens["early"] = model.inference(mel(), finalize=False)[0][0]
        save_file(
            {name: value.contiguous() for name, value in (weights | goldens).items()},
            DATA / f"hift_cosyvoice{number}.safetensors",
        )


if __name__ == "__main__":
    main()
