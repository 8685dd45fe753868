"""Makes the golden files of the speech tokenizer's parity test with the package s3tokenizer 0.3; run by hand.

    PYTHONPATH=<folder with s3tokenizer and einops> python tests/tts/tokens/make_s3_goldens.py

writes to tests/tts/tokens/data a tiny tokenizer with random weights, `s3_tiny.onnx`, exported as the released files
are, with nodes that are named after modules, and `s3_goldens.safetensors` with what upstream computes:

    log_mel          (T, F) of the first 1.5 s of the sample recording, as upstream normalises it
    hidden, codes    (T', dim), (T') of it
    log_mel_bins     (T,) its sum over 128 bins, of the first 20001 samples: an end that is no whole frame
"""

from __future__ import annotations

from pathlib import Path

import s3tokenizer.model_v2 as upstream
import torch
from s3tokenizer.utils import log_mel_spectrogram
from safetensors.torch import save_file
from torch import Tensor, nn

from loquent.speech.audio.files import read_audio

DATA = Path(__file__).parent / "data"
SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
N_MELS, DIM, HEADS, LAYERS = 128, 32, 2, 2
SEED = 11


class Exported(nn.Module):
    """The modules as the released graph has them: of the encoder at the top, the quantiser's projection below."""

    def __init__(self, model: upstream.S3TokenizerV2) -> None:
        super().__init__()
        self.conv1, self.conv2, self.blocks = model.encoder.conv1, model.encoder.conv2, model.encoder.blocks
        self.quantizer = nn.Module()
        self.quantizer.project_in = model.quantizer._codebook.project_down
        self.register_buffer("angles", torch.view_as_real(model.encoder.freqs_cis), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.nn.functional.gelu(self.conv2(torch.nn.functional.gelu(self.conv1(x)))).transpose(1, 2)
        steps = x.shape[1]
        mask = torch.ones(1, steps, 1)
        for block in self.blocks:
            x = block(x, torch.zeros(1, 1, 1, steps), mask, self.angles[:steps])
        h = self.quantizer.project_in(x).tanh() * 0.9990000128746033
        return ((h.round() + 1) * 3.0 ** torch.arange(8)).sum(-1)


@torch.no_grad()
def main() -> None:
    table = upstream.precompute_freqs_cis
    upstream.precompute_freqs_cis = lambda dim, end: table(DIM // HEADS, 64)  # for heads of 64 channels and 2048 steps
    config = upstream.ModelConfig(
        n_mels=N_MELS, n_audio_state=DIM, n_audio_head=HEADS, n_audio_layer=LAYERS, n_codebook_size=3**8
    )
    model = upstream.S3TokenizerV2("speech_tokenizer_v2", config).eval()
    draw = torch.Generator().manual_seed(SEED)
    for name, value in sorted(model.state_dict().items()):
        noise = torch.randn(value.shape, generator=draw)
        if value.ndim == 1 and "_ln.weight" in name:
            value.copy_(1 + 0.2 * noise)
        elif value.ndim == 1:
            value.copy_(0.2 * noise)
        else:
            value.copy_(noise * (2.0 if "project_down" in name else 1.0) / value[0].numel() ** 0.5)

    samples = torch.from_numpy(read_audio(SAMPLE, sample_rate=16000).samples)
    log_mel = log_mel_spectrogram(samples[:24000], N_MELS)
    hidden, _ = model.encoder(log_mel[None], torch.tensor([log_mel.shape[1]]))
    codes, _ = model.quantize(log_mel[None], torch.tensor([log_mel.shape[1]]))
    DATA.mkdir(exist_ok=True)
    save_file(
        {
            "log_mel": log_mel.T.contiguous(),
            "hidden": hidden[0].contiguous(),
            "codes": codes[0].long(),
            "log_mel_bins": log_mel_spectrogram(samples[:20001], 128).sum(0),
        },
        DATA / "s3_goldens.safetensors",
    )
    exported = Exported(model).eval()
    torch.view_as_real = lambda x: x  # exporters know no complex numbers: `Exported` passes cosines and sines on
    torch.onnx.export(exported, (log_mel[None],), DATA / "s3_tiny.onnx", dynamo=False)


if __name__ == "__main__":
    main()
