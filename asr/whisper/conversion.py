"""Names and shapes of Whisper's weights: OpenAI's, which we use, and how Hugging Face and CTranslate2 store the same.

Every conversion is exact. What a file holds beyond the model (a bias on the keys, an output projection that is not the
embedding) is refused rather than dropped.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import torch
from torch import Tensor

from loquent.asr.whisper.config import WhisperConfig


def weight_shapes(config: WhisperConfig) -> dict[str, tuple[int, ...]]:
    """Name -> shape of every weight of a model, in OpenAI's naming."""
    width = config.n_audio_state
    shapes: dict[str, tuple[int, ...]] = {
        "encoder.positional_embedding": (config.n_audio_ctx, width),
        "encoder.conv1.weight": (width, config.n_mels, 3),
        "encoder.conv1.bias": (width,),
        "encoder.conv2.weight": (width, width, 3),
        "encoder.conv2.bias": (width,),
        **_norm_shapes("encoder.ln_post", width),
        "decoder.token_embedding.weight": (config.n_vocab, width),
        "decoder.positional_embedding": (config.n_text_ctx, width),
        **_norm_shapes("decoder.ln", width),
    }
    for i in range(config.n_audio_layer):
        shapes |= _block_shapes(f"encoder.blocks.{i}", width, ("attn",))
    for i in range(config.n_text_layer):
        shapes |= _block_shapes(f"decoder.blocks.{i}", width, ("attn", "cross_attn"))
    return shapes


def from_hugging_face(weights: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """Rename the weights of a `transformers` Whisper model.

    Raises:
        ValueError: the output projection differs from the token embedding, to which Whisper ties it, or two names are
            of the same weight.
    """
    weights = dict(weights)
    projection = weights.pop("proj_out.weight", None)
    renamed: dict[str, Tensor] = {}
    for theirs, value in weights.items():
        name = rename_hugging_face(theirs)
        if name in renamed:
            raise ValueError(f"{name} is in the file twice, also as {theirs}")
        renamed[name] = value
    embedding = renamed.get("decoder.token_embedding.weight")
    if projection is not None and (embedding is None or not torch.equal(projection, embedding)):
        raise ValueError("proj_out.weight differs from the token embedding; expected them to be tied")
    return renamed


def from_ctranslate2(variables: Mapping[str, Tensor]) -> tuple[WhisperConfig, dict[str, Tensor]]:
    """Take apart the variables of a "WhisperSpec" model: its dimensions (without alignment heads) and its weights.

    Raises:
        ValueError: a variable is missing, unknown or not of a form that Whisper's model has.
    """
    remaining = dict(variables)

    def take(name: str) -> Tensor:
        if name not in remaining:
            raise ValueError(f"variable {name} is missing")
        value = remaining.pop(name)
        if value.ndim == 0:
            raise ValueError(f"variable {name} is a single number, expected a tensor")
        return value

    def take_number(name: str) -> int:
        value = remaining.pop(name, None)
        if value is None or value.ndim:
            found = "missing" if value is None else f"of shape {list(value.shape)}"
            raise ValueError(f"variable {name} is {found}, expected one number")
        return int(value)

    weights: dict[str, Tensor] = {}
    for side, norm in (("encoder", "ln_post"), ("decoder", "ln")):
        weights[f"{side}.positional_embedding"] = take(f"{side}/position_encodings/encodings")
        weights |= _ctranslate2_norm(f"{side}.{norm}", f"{side}/layer_norm", take)
    for name in ("conv1.weight", "conv1.bias", "conv2.weight", "conv2.bias"):
        weights[f"encoder.{name}"] = take(f"encoder/{name.replace('.', '/')}")
    embedding = weights["decoder.token_embedding.weight"] = take("decoder/embeddings/weight")
    projection = remaining.pop("decoder/projection/weight", embedding)
    if projection is not embedding and not torch.equal(projection, embedding):
        raise ValueError("decoder/projection/weight differs from the token embedding; expected them to be tied")

    layers = {}
    for side in ("encoder", "decoder"):
        indices = {int(m[1]) for name in remaining if (m := re.match(rf"{side}/layer_(\d+)/", name))}
        layers[side] = len(indices)
        for i in sorted(indices):
            weights |= _ctranslate2_block(f"{side}.blocks.{i}", f"{side}/layer_{i}", take, cross=side == "decoder")
    heads = {side: take_number(f"{side}/num_heads") for side in layers}
    unknown = [name for name, value in remaining.items() if value.ndim > 0]
    if unknown:
        raise ValueError(f"unknown variables {', '.join(sorted(unknown)[:3])}; expected those of a Whisper model")

    first = weights["encoder.conv1.weight"]
    if first.ndim != 3:
        raise ValueError(f"encoder.conv1.weight has shape {list(first.shape)}, expected three axes")
    width, n_mels = first.shape[:2]
    config = WhisperConfig(
        n_mels=n_mels,
        n_audio_ctx=len(weights["encoder.positional_embedding"]),
        n_audio_state=width,
        n_audio_head=heads["encoder"],
        n_audio_layer=layers["encoder"],
        n_vocab=len(embedding),
        n_text_ctx=len(weights["decoder.positional_embedding"]),
        n_text_state=width,
        n_text_head=heads["decoder"],
        n_text_layer=layers["decoder"],
    )
    return config, weights


def hugging_face_config(values: Mapping[str, Any]) -> WhisperConfig:
    """The dimensions (without alignment heads) in a `transformers` config.json; KeyError names a missing field."""
    return WhisperConfig(
        n_mels=values["num_mel_bins"],
        n_audio_ctx=values["max_source_positions"],
        n_audio_state=values["d_model"],
        n_audio_head=values["encoder_attention_heads"],
        n_audio_layer=values["encoder_layers"],
        n_vocab=values["vocab_size"],
        n_text_ctx=values["max_target_positions"],
        n_text_state=values["d_model"],
        n_text_head=values["decoder_attention_heads"],
        n_text_layer=values["decoder_layers"],
    )


def _norm_shapes(name: str, width: int) -> dict[str, tuple[int, ...]]:
    return {f"{name}.weight": (width,), f"{name}.bias": (width,)}


def _block_shapes(name: str, width: int, attentions: tuple[str, ...]) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        f"{name}.mlp.0.weight": (4 * width, width),
        f"{name}.mlp.0.bias": (4 * width,),
        f"{name}.mlp.2.weight": (width, 4 * width),
        f"{name}.mlp.2.bias": (width,),
        **_norm_shapes(f"{name}.mlp_ln", width),
    }
    for attention in attentions:
        shapes |= _norm_shapes(f"{name}.{attention}_ln", width)
        for linear in ("query", "key", "value", "out"):
            shapes[f"{name}.{attention}.{linear}.weight"] = (width, width)
            if linear != "key":
                shapes[f"{name}.{attention}.{linear}.bias"] = (width,)
    return shapes


# In order: a block's own norms come before the norm of the stack, whose name they contain.
_HUGGING_FACE_NAMES = (
    (r"^model\.", ""),
    (r"\.layers\.", ".blocks."),
    (r"\.embed_positions\.weight$", ".positional_embedding"),
    (r"\.embed_tokens\.", ".token_embedding."),
    (r"\.self_attn_layer_norm\.", ".attn_ln."),
    (r"\.encoder_attn_layer_norm\.", ".cross_attn_ln."),
    (r"\.final_layer_norm\.", ".mlp_ln."),
    (r"^encoder\.layer_norm\.", "encoder.ln_post."),
    (r"^decoder\.layer_norm\.", "decoder.ln."),
    (r"\.self_attn\.", ".attn."),
    (r"\.encoder_attn\.", ".cross_attn."),
    (r"\.q_proj\.", ".query."),
    (r"\.k_proj\.", ".key."),
    (r"\.v_proj\.", ".value."),
    (r"\.out_proj\.", ".out."),
    (r"\.fc1\.", ".mlp.0."),
    (r"\.fc2\.", ".mlp.2."),
)


def rename_hugging_face(name: str) -> str:
    """Our name for a weight of `transformers`' Whisper; one of ours stays as it is."""
    for pattern, replacement in _HUGGING_FACE_NAMES:
        name = re.sub(pattern, replacement, name)
    return name


def _ctranslate2_norm(ours: str, theirs: str, take: Callable[[str], Tensor]) -> dict[str, Tensor]:
    return {f"{ours}.weight": take(f"{theirs}/gamma"), f"{ours}.bias": take(f"{theirs}/beta")}


def _ctranslate2_block(ours: str, theirs: str, take: Callable[[str], Tensor], *, cross: bool) -> dict[str, Tensor]:
    weights = _ctranslate2_norm(f"{ours}.mlp_ln", f"{theirs}/ffn/layer_norm", take)
    for kind in ("weight", "bias"):
        weights[f"{ours}.mlp.0.{kind}"] = take(f"{theirs}/ffn/linear_0/{kind}")
        weights[f"{ours}.mlp.2.{kind}"] = take(f"{theirs}/ffn/linear_1/{kind}")
    # Projections of the same input are stored stacked: q, k and v of self-attention, k and v of cross-attention.
    attentions: dict[str, tuple[str, tuple[tuple[str, ...], ...]]] = {
        "attn": ("self_attention", (("query", "key", "value"), ("out",)))
    }
    if cross:
        attentions["cross_attn"] = ("attention", (("query",), ("key", "value"), ("out",)))
    for attention, (stored, groups) in attentions.items():
        weights |= _ctranslate2_norm(f"{ours}.{attention}_ln", f"{theirs}/{stored}/layer_norm", take)
        for i, linears in enumerate(groups):
            for kind in ("weight", "bias"):
                name = f"{theirs}/{stored}/linear_{i}/{kind}"
                stacked = take(name)
                if len(stacked) % len(linears):
                    raise ValueError(f"{name} has {len(stacked)} rows, expected {len(linears)} stacked projections")
                for linear, part in zip(linears, stacked.chunk(len(linears)), strict=True):
                    weights[f"{ours}.{attention}.{linear}.{kind}"] = part
        if weights.pop(f"{ours}.{attention}.key.bias").any():
            raise ValueError(f"{theirs}/{stored} has a bias on its keys; expected zeros, as Whisper has none")
    return weights
