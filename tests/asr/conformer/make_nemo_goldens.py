"""Makes the golden files of the NeMo parity tests with NeMo's own code; needs NeMo (2.5), run by hand, never by pytest.

    PYTHONPATH=<checkout of NVIDIA-NeMo/NeMo> python tests/asr/conformer/make_nemo_goldens.py

writes to tests/asr/data, for three tiny streaming FastConformers with random weights, `nemo_<name>.nemo` as NeMo's
`save_to` packs it, and one `nemo_goldens.safetensors` with what NeMo computes offline from a ragged batch of audio:

    start, samples                          (B,) where in the sample recording the audio begins, and how many samples
    <name>.mel                              (T, F) of the last row
    <name>.<R>.encoded, <name>.length       (B, T', dim) for the look-ahead R, (B,)
    <name>.<R>.ctc                          (B, T', V + 1) log-probabilities
    <name>.<R>.tokens, .frames              (B, U) of RNN-T greedy search, -1 beyond the end of a row

Weights are drawn so that every parameter matters (norms and position biases too) and that the greedy search emits
none, one and several tokens in a frame.
"""

from __future__ import annotations

import gzip
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import sentencepiece
import torch
from safetensors.torch import save_file
from torch import Tensor

from loquent.speech.audio.files import read_audio

DATA = Path(__file__).parent / "data"
SAMPLE = Path(__file__).parents[3] / "speech" / "assets" / "sample.flac"
VOCABULARY = 32
STARTS = (0, 16_000, 32_000)  # samples
LENGTHS = (77_123, 41_120, 8_000)
DIM = 32
TOKENS = 45  # at most, in the first row of 62 frames


def main() -> None:
    from nemo.collections.asr.models import EncDecCTCModelBPE, EncDecHybridRNNTCTCBPEModel, EncDecRNNTBPEModel

    torch.set_num_threads(1)
    samples = torch.from_numpy(read_audio(SAMPLE, sample_rate=16000).samples)
    length = torch.tensor(LENGTHS)
    audio = torch.zeros(len(LENGTHS), max(LENGTHS))
    for row, (start, count) in enumerate(zip(STARTS, LENGTHS, strict=True)):
        audio[row, :count] = samples[start:][:count]
    goldens = {"start": torch.tensor(STARTS), "samples": length}

    lookaheads = [[28, 13], [28, 6], [28, 1], [28, 0]]
    variants: tuple[tuple[str, Any, dict[str, Any], int], ...] = (
        ("hybrid", EncDecHybridRNNTCTCBPEModel, encoder(80, att_context_size=lookaheads), 3),
        (
            "ctc",
            EncDecCTCModelBPE,
            encoder(80, att_context_size=[28, 6], conv_norm_type="batch_norm", xscaling=True, use_bias=False),
            5,
        ),
        (
            "rnnt",
            EncDecRNNTBPEModel,
            encoder(128, att_context_size=[[14, 13], [14, 6], [14, 1], [14, 0]], use_bias=False, n_layers=1),
            7,
        ),
    )
    with tempfile.TemporaryDirectory() as scratch:
        os.chdir(scratch)  # so that the configurations name no place of this machine
        train_tokenizer()
        for name, kind, shape, seed in variants:
            model = make(kind, shape, seed, audio, length)
            model.save_to(f"nemo_{name}.nemo")
            goldens |= {f"{name}.{key}": value for key, value in outputs_of(model, audio, length).items()}
            if name == "ctc":  # as older releases packed them
                pack = Path(f"nemo_{name}.nemo")
                pack.write_bytes(gzip.compress(pack.read_bytes(), mtime=0))
            DATA.mkdir(exist_ok=True)
            shutil.copyfile(f"nemo_{name}.nemo", DATA / f"nemo_{name}.nemo")
    save_file({name: value.contiguous() for name, value in goldens.items()}, DATA / "nemo_goldens.safetensors")


def train_tokenizer() -> None:
    text = "the quick brown fox jumps over the lazy dog while seven wizards vex my bright quiz club".split()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([" ".join(text[i:] + text[:i]) for i in range(len(text))]),
        model_prefix="tokenizer",
        model_type="bpe",
        vocab_size=VOCABULARY,
        normalization_rule_name="identity",
        bos_id=-1,
        eos_id=-1,
    )
    Path("vocab.txt").write_text("", encoding="utf-8")


def encoder(n_mels: int, **values: Any) -> dict[str, Any]:
    return {
        "_target_": "nemo.collections.asr.modules.ConformerEncoder",
        "feat_in": n_mels,
        "feat_out": -1,
        "n_layers": 2,
        "d_model": DIM,
        "use_bias": True,
        "subsampling": "dw_striding",
        "subsampling_factor": 8,
        "subsampling_conv_channels": 12,
        "causal_downsampling": True,
        "ff_expansion_factor": 4,
        "self_attention_model": "rel_pos",
        "n_heads": 4,
        "att_context_style": "chunked_limited",
        "xscaling": False,
        "pos_emb_max_len": 5000,
        "conv_kernel_size": 9,
        "conv_norm_type": "layer_norm",
        "conv_context_size": "causal",
        **values,
    }


def make(kind: Any, encoder: dict[str, Any], seed: int, audio: Tensor, length: Tensor) -> Any:
    from omegaconf import OmegaConf

    ctc = {"_target_": "nemo.collections.asr.modules.ConvASRDecoder", "feat_in": DIM, "num_classes": -1}
    ctc["vocabulary"] = []
    config: dict[str, Any] = {
        "sample_rate": 16000,
        "tokenizer": {"dir": ".", "type": "bpe"},
        "preprocessor": {
            "_target_": "nemo.collections.asr.modules.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": "NA",
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": encoder["feat_in"],
            "n_fft": 512,
            "dither": 0.00001,
            "pad_to": 0,
        },
        "encoder": encoder,
    }
    if kind.__name__ == "EncDecCTCModelBPE":
        config |= {"decoder": ctc, "decoding": {"strategy": "greedy"}}
    else:
        large = kind.__name__ == "EncDecRNNTBPEModel"
        config |= {
            "model_defaults": {"enc_hidden": DIM, "pred_hidden": 24, "joint_hidden": 40},
            "decoder": {
                "_target_": "nemo.collections.asr.modules.RNNTDecoder",
                "normalization_mode": None,
                "random_state_sampling": False,
                "blank_as_pad": True,
                "prednet": {"pred_hidden": 24, "pred_rnn_layers": 2 if large else 1, "t_max": None, "dropout": 0.2},
            },
            "joint": {
                "_target_": "nemo.collections.asr.modules.RNNTJoint",
                "log_softmax": None,
                "fuse_loss_wer": False,
                "jointnet": {"joint_hidden": 40, "activation": "relu", "dropout": 0.0 if large else 0.2},
            },
            "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": 10}},
            "loss": {"loss_name": "default"},
        }
        if not large:
            config["aux_ctc"] = {"ctc_loss_weight": 0.3, "decoder": ctc, "decoding": {"strategy": "greedy"}}
    model = kind(cfg=OmegaConf.create(config)).eval()
    randomise(model, seed, audio, length)
    return model


@torch.no_grad()
def randomise(model: Any, seed: int, audio: Tensor, length: Tensor) -> None:
    """Give every parameter and statistic a value that shows in the output."""
    draw = torch.Generator().manual_seed(seed)
    for name, value in sorted(model.state_dict().items()):
        if name.startswith("preprocessor") or not value.is_floating_point():
            continue
        noise = torch.randn(value.shape, generator=draw)
        if name.endswith("running_var"):
            value.copy_(0.5 + torch.rand(value.shape, generator=draw))
        elif value.ndim == 1 and name.endswith("weight"):  # of a norm
            value.copy_(1 + 0.2 * noise)
        elif value.ndim == 1:
            value.copy_(0.2 * noise)
        elif "pos_bias" in name:
            value.copy_(0.5 * noise)
        else:
            gain = 4.0 if name.startswith(("decoder.prediction", "joint.pred")) else 1.0
            value.copy_(gain * noise / value[0].numel() ** 0.5)
    encoded, encoded_length = encode(model, audio, length)
    encoded = encoded.transpose(1, 2)[0, : encoded_length[0]]
    heads = [model.joint.enc] if hasattr(model, "joint") else []
    heads += [head.decoder_layers[0] for head in ctc_heads(model)]
    for head in heads:
        # What an untrained encoder says differs little between frames: the difference is magnified.
        head.weight /= (encoded - encoded.mean(0)).std()
        head.bias -= head.weight.reshape(len(head.bias), -1) @ encoded.mean(0)
    if hasattr(model, "joint"):
        model.decoder.prediction.embed.weight[-1] = 0  # NeMo's padding row, its start symbol
        blank = model.joint.joint_net[-1].bias
        while len(greedy(model, *encode(model, audio, length))[0][0]) > TOKENS:
            blank[-1] += 0.1


def ctc_heads(model: Any) -> list[Any]:
    if hasattr(model, "ctc_decoder"):
        return [model.ctc_decoder]
    return [] if hasattr(model, "joint") else [model.decoder]


@torch.no_grad()
def outputs_of(model: Any, audio: Tensor, length: Tensor) -> dict[str, Tensor]:
    mel, mel_length = model.preprocessor(input_signal=audio, length=length)
    found = {"mel": mel[-1, :, : mel_length[-1]].T}
    for context in model.encoder.att_context_size_all:
        model.encoder.set_default_att_context_size(context)
        encoded, found["length"] = encode(model, audio, length)
        found[f"{context[1]}.encoded"] = encoded.transpose(1, 2)
        for head in ctc_heads(model):
            found[f"{context[1]}.ctc"] = head(encoder_output=encoded)
        if hasattr(model, "joint"):
            tokens, frames = greedy(model, encoded, found["length"])
            for key, rows in (("tokens", tokens), ("frames", frames)):
                longest = max(map(len, rows))
                found[f"{context[1]}.{key}"] = torch.tensor([row + [-1] * (longest - len(row)) for row in rows])
    return found


def encode(model: Any, audio: Tensor, length: Tensor) -> tuple[Tensor, Tensor]:
    """(B, dim, T') and (B,)."""
    mel, mel_length = model.preprocessor(input_signal=audio, length=length)
    return model.encoder(audio_signal=mel, length=mel_length)


def greedy(model: Any, encoded: Tensor, length: Tensor) -> tuple[list[list[int]], list[list[int]]]:
    """Tokens of each row and the frames they were found in."""
    (hypotheses,) = model.decoding.decoding(encoder_output=encoded, encoded_lengths=length)
    return tuple([torch.as_tensor(getattr(h, key)).tolist() for h in hypotheses] for key in ("y_sequence", "timestamp"))


if __name__ == "__main__":
    main()
