"""Makes the golden file of the CosyVoice flow parity tests with upstream's own code; run by hand, never by pytest.

    PYTHONPATH=<checkout of FunAudioLLM/CosyVoice, commit ace7c47>:<its third_party/Matcha-TTS>:<folder with loquent> \
        python tests/tts/flow/make_cosyvoice_goldens.py

needs diffusers 0.29, transformers 4.44, x-transformers, conformer, einops, lightning, omegaconf and onnxruntime. (The
source distribution of minicpmo 0.1.2 on PyPI carries the same code of CosyVoice 2, and Matcha-TTS, too.)

It writes tests/tts/flow/data/cosyvoice_flow_goldens.safetensors: what tiny flows of CosyVoice 2 ("unet") and 3 ("dit")
make of the same tokens and voice, whole, without and with their chunk mask:

    <name>.<full | chunk>        (2T, 80) frames after the prompt
    <name>.<full | chunk>.flow   (2T, 80) the estimator alone, at TIME

and as metadata the shapes of upstream's weights. The weights themselves are functions of their names, see `draw`.
"""

from __future__ import annotations

import json
import zlib
from pathlib import Path
from typing import Any

import torch
from safetensors.torch import save_file
from torch import Tensor

from loquent.kernels.counter_noise import counter_noise

GOLDENS = Path(__file__).parent / "data" / "cosyvoice_flow_goldens.safetensors"
CHUNK = 5  # tokens
PROMPT, TOKENS = 7, 26  # of the voice prompt; of both
VOCABULARY, SPEAKER, BINS, HEAD = 40, 12, 80, 16
TIME = 0.3


def noise(name: str, *shape: int) -> Tensor:
    """Normal values that depend on a name alone."""
    rows = torch.arange(shape[0])[None]
    values = counter_noise(torch.tensor([zlib.crc32(name.encode())]), rows, torch.Size(shape[1:]).numel())
    return values.reshape(shape)


def draw(shapes: dict[str, list[int]]) -> dict[str, Tensor]:
    """Weights of upstream's names and shapes; every one of them shows in the output."""
    weights = {}
    for name, shape in shapes.items():
        value = noise(name, *shape)
        if "pos_bias" in name:
            value *= 0.5
        elif len(shape) == 1:
            value = 0.2 * value + float(name.endswith("weight"))  # a weight of one axis is that of a norm
        elif name != "input_embedding.weight":
            value /= value[0].numel() ** 0.5
        weights[name] = value
    return weights


def inputs() -> dict[str, Tensor]:
    """Tokens, a speaker, a prompt, and for the estimator alone frames and conditions; rows first."""
    frames = 2 * TOKENS
    return {
        "tokens": (torch.arange(TOKENS) * 7 % VOCABULARY)[None],
        "speaker": noise("speaker", 1, SPEAKER),
        "prompt": noise("prompt", 1, 2 * PROMPT, BINS),
        "x": noise("x", 1, frames, BINS),
        "mu": noise("mu", 1, frames, BINS),
        "voice": noise("voice", 1, BINS),
        "given": noise("given", 1, frames, BINS),
    }


def main() -> None:
    torch.set_num_threads(1)
    goldens: dict[str, Tensor] = {}
    shapes: dict[str, str] = {}
    for name, flow in (("unet", make_unet_flow()), ("dit", make_dit_flow())):
        state = flow.state_dict()
        buffers = {key for key in state if key.endswith("inv_freq")}
        own = {key: list(value.shape) for key, value in state.items() if key not in buffers}
        shapes[name] = json.dumps(own)
        flow.load_state_dict({**{key: state[key] for key in buffers}, **draw(own)})
        flow.eval()
        for mask, streaming in (("full", False), ("chunk", True)):
            goldens[f"{name}.{mask}"] = synthesise(flow, streaming)
            goldens[f"{name}.{mask}.flow"] = estimate(flow.decoder.estimator, streaming)
        check_prefixes(flow, goldens[f"{name}.chunk"])
    GOLDENS.parent.mkdir(exist_ok=True)
    save_file({name: value.contiguous() for name, value in goldens.items()}, GOLDENS, shapes)


def make_unet_flow() -> Any:
    from cosyvoice.flow.decoder import CausalConditionalDecoder
    from cosyvoice.flow.flow import CausalMaskedDiffWithXvec
    from cosyvoice.transformer.upsample_encoder import PreLookaheadLayer, Upsample1D, UpsampleConformerEncoder

    channels = 32
    encoder = UpsampleConformerEncoder(
        input_size=channels,
        output_size=channels,
        attention_heads=2,
        linear_units=40,
        num_blocks=2,
        input_layer="linear",
        pos_enc_layer_type="rel_pos_espnet",
        use_cnn_module=False,
        macaron_style=False,
        static_chunk_size=CHUNK,
    )
    # These sizes are constants upstream.
    encoder.pre_lookahead_layer = PreLookaheadLayer(in_channels=channels, channels=channels, pre_lookahead_len=3)
    encoder.up_layer = Upsample1D(channels=channels, out_channels=channels, stride=2)
    encoder.up_encoders = encoder.up_encoders[:1]
    estimator = CausalConditionalDecoder(
        in_channels=4 * BINS,
        out_channels=BINS,
        channels=[32],
        dropout=0.0,
        attention_head_dim=HEAD,
        n_blocks=2,
        num_mid_blocks=2,
        num_heads=2,
        act_fn="gelu",
        static_chunk_size=2 * CHUNK,
    )
    return CausalMaskedDiffWithXvec(
        input_size=channels,
        output_size=BINS,
        spk_embed_dim=SPEAKER,
        vocab_size=VOCABULARY,
        encoder=encoder,
        decoder=make_matching(estimator),
    )


def make_dit_flow() -> Any:
    from cosyvoice.flow.DiT.dit import DiT
    from cosyvoice.flow.flow import CausalMaskedDiffWithDiT
    from cosyvoice.transformer.upsample_encoder import PreLookaheadLayer

    estimator = DiT(
        dim=32,
        depth=2,
        heads=2,
        dim_head=HEAD,
        ff_mult=2,
        mel_dim=BINS,
        mu_dim=BINS,
        spk_dim=BINS,
        out_channels=BINS,
        static_chunk_size=2 * CHUNK,
    )
    return CausalMaskedDiffWithDiT(
        input_size=BINS,
        output_size=BINS,
        spk_embed_dim=SPEAKER,
        vocab_size=VOCABULARY,
        pre_lookahead_layer=PreLookaheadLayer(in_channels=BINS, channels=24, pre_lookahead_len=3),
        decoder=make_matching(estimator),
    )


def make_matching(estimator: Any) -> Any:
    from cosyvoice.flow.flow_matching import CausalConditionalCFM
    from omegaconf import DictConfig

    settings = DictConfig(
        {
            "sigma_min": 1e-06,
            "solver": "euler",
            "t_scheduler": "cosine",
            "training_cfg_rate": 0.2,
            "inference_cfg_rate": 0.7,
            "reg_loss_type": "l1",
        }
    )
    return CausalConditionalCFM(in_channels=240, n_spks=1, spk_emb_dim=BINS, cfm_params=settings, estimator=estimator)


def synthesise(flow: Any, streaming: bool, tokens: int = TOKENS) -> Tensor:
    """(2T, 80) frames after the prompt, of the first ``tokens``."""
    given = inputs()
    feats, _ = flow.inference(
        token=given["tokens"][:, PROMPT:tokens],
        token_len=torch.tensor([tokens - PROMPT]),
        prompt_token=given["tokens"][:, :PROMPT],
        prompt_token_len=torch.tensor([PROMPT]),
        prompt_feat=given["prompt"],
        prompt_feat_len=torch.tensor([2 * PROMPT]),
        embedding=given["speaker"],
        streaming=streaming,
        finalize=tokens == TOKENS,
    )
    return feats[0].T


@torch.no_grad()
def estimate(estimator: Any, streaming: bool) -> Tensor:
    given = inputs()
    x, mu, cond = (given[name].transpose(1, 2) for name in ("x", "mu", "given"))
    mask = torch.ones(1, 1, x.shape[2])
    velocity = estimator(x, mask, mu, torch.tensor([TIME]), given["voice"], cond, streaming=streaming)
    return velocity[0].T


def check_prefixes(flow: Any, whole: Tensor) -> None:
    """Upstream computes the whole prefix for every chunk; under its mask that changes nothing."""
    for tokens in range(2 * CHUNK, TOKENS - 3, CHUNK):
        prefix = synthesise(flow, True, tokens + 3)
        assert (prefix - whole[: len(prefix)]).abs().max() < 1e-4


if __name__ == "__main__":
    main()
