"""Upstream's names and shapes of the weights of CosyVoice's flow (`flow.pt`), and ours for the same model.

Every conversion is exact; a weight that we have no place for is refused rather than dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping

import torch
from torch import Tensor

from loquent.speech.nn.skeleton import Skeletons
from loquent.tts.flow.dit import DiTConfig
from loquent.tts.flow.encoder import EncoderConfig, RepeatConfig
from loquent.tts.flow.token_flow import TokenFlow, TokenFlowConfig
from loquent.tts.flow.unet import UNetConfig

IGNORED = re.compile(r"decoder\.rand_noise|decoder\.estimator\.rotary_embed\.inv_freq")


def from_cosyvoice(weights: Mapping[str, Tensor], head_size: int = 64) -> tuple[TokenFlowConfig, dict[str, Tensor]]:
    """A flow of ours from that of CosyVoice 2 or 3.

    Args:
        weights: upstream's state dictionary. head_size: channels of a head of the estimator, which shapes do not tell.

    Returns:
        The configuration, and weights under `TokenFlow`'s names.

    Raises:
        ValueError: the weights are those of something else; the message names one.
    """
    weights = {name: weight for name, weight in weights.items() if not IGNORED.fullmatch(name)}
    config = config_of(weights, head_size)
    with Skeletons():
        shapes = {name: weight.shape for name, weight in TokenFlow(config).state_dict().items()}
    converted = {name: _taken(weights, name, shape, config) for name, shape in shapes.items()}
    if weights:
        raise ValueError(f"{min(weights)} has no place in a {type(config.estimator).__name__[:-6]} flow")
    return config, converted


def config_of(weights: Mapping[str, Tensor], head_size: int = 64) -> TokenFlowConfig:
    """The size of a flow, by the shapes of upstream's weights."""

    def size(name: str, axis: int) -> int:
        if name not in weights:
            raise ValueError(f"{name} is missing: not the flow of CosyVoice 2 or 3")
        return weights[name].shape[axis]

    def count(prefix: str) -> int:
        found = {int(name[len(prefix) :].split(".")[0]) for name in weights if name.startswith(prefix)}
        return len(found)

    vocabulary, channels = size("input_embedding.weight", 0), size("input_embedding.weight", 1)
    speaker, bins = size("spk_embed_affine_layer.weight", 1), size("spk_embed_affine_layer.weight", 0)
    encoder: EncoderConfig | RepeatConfig
    if "encoder_proj.weight" in weights:
        ahead, layer = "encoder.pre_lookahead_layer.conv1.weight", "encoder.encoders.0."
        encoder = EncoderConfig(
            channels=channels,
            heads=size(layer + "self_attn.pos_bias_u", 0),
            inner=size(layer + "feed_forward.w_1.weight", 0),
            layers=count("encoder.encoders."),
            up_layers=count("encoder.up_encoders."),
            lookahead=size(ahead, 2) - 1,
        )
    else:
        ahead = "pre_lookahead_layer.conv1.weight"
        encoder = RepeatConfig(channels, size(ahead, 0), size(ahead, 2) - 1)

    root = "decoder.estimator."
    estimator: DiTConfig | UNetConfig
    if root + "input_embed.proj.weight" in weights:
        conv, attention = (
            root + "input_embed.conv_pos_embed.conv1.0.weight",
            root + "transformer_blocks.0.attn.to_q.weight",
        )
        width = size(conv, 0)
        estimator = DiTConfig(
            bins=bins,
            conditions=3 * bins,
            channels=width,
            layers=count(root + "transformer_blocks."),
            heads=size(attention, 0) // head_size,
            head_size=head_size,
            expansion=size(root + "transformer_blocks.0.ff.ff.0.0.weight", 0) // width,
            kernel=size(conv, 2),
            groups=width // size(conv, 1),
            time_features=size(root + "time_embed.time_mlp.0.weight", 1),
        )
    else:
        estimator = UNetConfig(
            bins=bins,
            conditions=3 * bins,
            channels=size(root + "final_proj.weight", 1),
            middle=count(root + "mid_blocks."),
            blocks=count(root + "down_blocks.0.1."),
            heads=size(root + "down_blocks.0.1.0.attn1.to_q.weight", 0) // head_size,
            head_size=head_size,
        )
    return TokenFlowConfig(encoder, estimator, vocabulary, speaker)


def cosyvoice_name(name: str, config: TokenFlowConfig) -> str:
    """Upstream's name of a weight of `TokenFlow`; of fused projections, with to_qkv for to_q, to_k and to_v."""
    names: tuple[tuple[str, str], ...] = _FLOW
    if name.startswith("encoder."):
        names = _ENCODER if isinstance(config.encoder, EncoderConfig) else _REPEAT
    elif name.startswith("solver."):
        names = _DIT if isinstance(config.estimator, DiTConfig) else _UNET
    for ours, theirs in names:
        name = re.sub(ours, theirs, name)
    return name


def _taken(weights: dict[str, Tensor], name: str, shape: torch.Size, config: TokenFlowConfig) -> Tensor:
    """Take the weight that ours is made of out of upstream's."""
    theirs = cosyvoice_name(name, config)
    parts = [theirs.replace("to_qkv", f"to_{part}") for part in "qkv"] if "to_qkv" in theirs else [theirs]
    for part in parts:
        if part not in weights:
            raise ValueError(f"{part} is missing")
    weight = torch.cat([weights.pop(part) for part in parts]) if len(parts) > 1 else weights.pop(theirs)
    if weight.ndim == len(shape) + 1 and weight.shape[-1] == 1:  # a convolution over one step
        weight = weight.squeeze(-1)
    if weight.shape != shape:
        raise ValueError(f"{theirs} has shape {tuple(weight.shape)}, expected {tuple(shape)}")
    if theirs.endswith("input_embed.proj.weight"):  # columns: frame, prompt, encoder, speaker
        x, prompt, mu, speaker = weight.chunk(4, dim=1)
        weight = torch.cat([x, mu, speaker, prompt], dim=1)
    return weight


# Our names as patterns, and what upstream says instead; applied in order.
_FLOW = (
    (r"^embedding\.", "input_embedding."),
    (r"^speaker\.", "spk_embed_affine_layer."),
    (r"^project\.", "encoder_proj."),
)
_ENCODER = (
    (r"embed\.linear\.", "embed.out.0."),
    (r"embed\.norm\.", "embed.out.1."),
    (r"^encoder\.norm\.", "encoder.after_norm."),
    (r"lookahead\.ahead\.", "pre_lookahead_layer.conv1."),
    (r"lookahead\.behind\.", "pre_lookahead_layer.conv2."),
    (r"up_conv\.", "up_layer.conv."),
    (r"layers\.(\d+)\.norm\.", r"layers.\1.norm_ff."),
    (r"layers\.(\d+)\.", r"encoders.\1."),
    (r"attention_norm\.", "norm_mha."),
    (r"widen\.", "feed_forward.w_1."),
    (r"narrow\.", "feed_forward.w_2."),
    (r"attention\.query\.", "self_attn.linear_q."),
    (r"attention\.key\.", "self_attn.linear_k."),
    (r"attention\.value\.", "self_attn.linear_v."),
    (r"attention\.out\.", "self_attn.linear_out."),
    (r"attention\.distance\.", "self_attn.linear_pos."),
    (r"attention\.content_bias", "self_attn.pos_bias_u"),
    (r"attention\.distance_bias", "self_attn.pos_bias_v"),
)
_REPEAT = (
    (r"^encoder\.lookahead\.ahead\.", "pre_lookahead_layer.conv1."),
    (r"^encoder\.lookahead\.behind\.", "pre_lookahead_layer.conv2."),
)
_UNET = (
    (r"^solver\.", "decoder."),
    (r"estimator\.time\.widen\.", "estimator.time_mlp.linear_1."),
    (r"estimator\.time\.out\.", "estimator.time_mlp.linear_2."),
    (r"estimator\.last\.conv\.", "estimator.final_block.block.0."),
    (r"estimator\.last\.norm\.", "estimator.final_block.block.2."),
    (r"estimator\.out\.", "estimator.final_proj."),
    (r"(down|up)_conv\.", r"\1_blocks.0.2."),
    (r"estimator\.(down|up)\.", r"estimator.\1_blocks.0."),
    (r"estimator\.middle\.(\d+)\.", r"estimator.mid_blocks.\1."),
    (r"_blocks\.(\d+)\.blocks\.(\d+)\.norm\.", r"_blocks.\1.1.\2.norm3."),
    (r"_blocks\.(\d+)\.blocks\.(\d+)\.", r"_blocks.\1.1.\2."),
    (r"_blocks\.(\d+)\.time\.", r"_blocks.\1.0.mlp.1."),
    (r"_blocks\.(\d+)\.skip\.", r"_blocks.\1.0.res_conv."),
    (r"_blocks\.(\d+)\.first\.conv\.", r"_blocks.\1.0.block1.block.0."),
    (r"_blocks\.(\d+)\.first\.norm\.", r"_blocks.\1.0.block1.block.2."),
    (r"_blocks\.(\d+)\.second\.conv\.", r"_blocks.\1.0.block2.block.0."),
    (r"_blocks\.(\d+)\.second\.norm\.", r"_blocks.\1.0.block2.block.2."),
    (r"attention_norm\.", "norm1."),
    (r"attention\.qkv\.", "attn1.to_qkv."),
    (r"attention\.out\.", "attn1.to_out.0."),
    (r"widen\.", "ff.net.0.proj."),
    (r"narrow\.", "ff.net.2."),
)
_DIT = (
    (r"^solver\.", "decoder."),
    (r"estimator\.time\.widen\.", "estimator.time_embed.time_mlp.0."),
    (r"estimator\.time\.out\.", "estimator.time_embed.time_mlp.2."),
    (r"estimator\.inputs\.", "estimator.input_embed.proj."),
    (r"estimator\.positions\.0\.", "estimator.input_embed.conv_pos_embed.conv1.0."),
    (r"estimator\.positions\.1\.", "estimator.input_embed.conv_pos_embed.conv2.0."),
    (r"estimator\.modulation\.", "estimator.norm_out.linear."),
    (r"estimator\.out\.", "estimator.proj_out."),
    (r"layers\.(\d+)\.modulation\.", r"layers.\1.attn_norm.linear."),
    (r"layers\.(\d+)\.", r"transformer_blocks.\1."),
    (r"attention\.qkv\.", "attn.to_qkv."),
    (r"attention\.out\.", "attn.to_out.0."),
    (r"widen\.", "ff.ff.0.0."),
    (r"narrow\.", "ff.ff.2."),
)
