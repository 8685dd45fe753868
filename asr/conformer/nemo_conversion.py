"""NeMo's names and shapes of the weights of streaming FastConformers, and ours for the same models.

Every conversion is exact; a weight that we have no place for is refused rather than dropped.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any, Literal

import torch
from torch import Tensor

from loquent.asr.conformer.model import ConformerModel, ConformerModelConfig
from loquent.asr.conformer.nemo_settings import (
    Statistics,
    check_features,
    encoder_config,
    feature_statistics,
    nemo_mel_filters,
    settings_of,
    transducer_config,
    weight_size,
)
from loquent.speech.nn.skeleton import Skeletons


def from_nemo(
    settings: Mapping[str, Any],
    weights: Mapping[str, Tensor],
    given_statistics: Statistics | Literal["running"] | None = None,
) -> tuple[ConformerModelConfig, dict[str, Tensor], tuple[str, ...]]:
    """A model of ours from NeMo's.

    Args:
        settings: content of `model_config.yaml`.
        weights: NeMo's state dictionary.
        given_statistics: `feature_statistics` of `load_nemo`.

    Returns:
        The configuration, weights under `ConformerModel`'s names, and warnings.

    Raises:
        ValueError: the model is of another kind, or cannot be streamed exactly; the message says why.
    """
    weights = dict(weights)
    check_features(settings, weights)
    statistics, warnings = feature_statistics(settings, given_statistics)
    encoder = encoder_config(settings, weights)
    transducer = transducer_config(settings, weights, encoder.dim)
    ctc = next((name for name in weights if name.endswith("decoder_layers.0.weight")), None)
    if transducer is None and ctc is None:
        raise ValueError("the weights hold neither a CTC decoder nor a transducer's prediction network")
    config = ConformerModelConfig(
        encoder=encoder,
        vocabulary=transducer.vocabulary if transducer else weight_size(weights, str(ctc), 0) - 1,
        ctc=ctc is not None,
        transducer=transducer,
        fixed_statistics=isinstance(statistics, tuple),
        running_statistics=statistics == "running",
    )

    converted: dict[str, Tensor] = {}
    for name, shape in _shapes(config).items():
        if name in ("mean", "deviation"):
            continue
        theirs = nemo_name(name, config)
        converted[name] = _taken(weights, theirs, shape)
    unknown = [name for name in weights if not name.startswith(("preprocessor.", "spec_augmentation.", "loss."))]
    if unknown:
        raise ValueError(_explain_unknown(unknown))
    if isinstance(statistics, tuple):
        converted["mean"], converted["deviation"] = statistics
    return config, converted, warnings


def to_nemo(config: ConformerModelConfig, weights: Mapping[str, Tensor]) -> tuple[dict[str, Any], dict[str, Tensor]]:
    """The content of `model_config.yaml` (without the tokenizer) and NeMo's state dictionary of a model of ours.

    Raises:
        ValueError: NeMo has no such model.
    """
    encoder, transducer = config.encoder, config.transducer
    if config.adaptive_lookahead:
        raise ValueError("NeMo has no encoder that decides its look-ahead (adaptive_lookahead); only fixed ones")
    for lookahead in encoder.lookaheads:
        if encoder.left_context % (lookahead + 1):
            raise ValueError(
                f"NeMo wants a left context of whole chunks: {encoder.left_context} frames are not a multiple of "
                f"{lookahead + 1}, the chunk of look-ahead {lookahead}"
            )
    if transducer and transducer.predictor != "lstm":
        raise ValueError(f"only LSTM predictors can be written for NeMo, this one is {transducer.predictor!r}")
    converted = {}
    for name, shape in _shapes(config).items():
        if name not in weights or weights[name].shape != shape:
            found = tuple(weights[name].shape) if name in weights else "nothing"
            raise ValueError(f"{name} should have shape {tuple(shape)}, found {found}")
        if name in ("mean", "deviation"):
            continue
        theirs, weight = nemo_name(name, config), weights[name].detach().cpu()
        for _ in range(_unit_dimensions(theirs)):
            weight = weight[..., None]
        converted[theirs] = weight.contiguous()
    if extra := weights.keys() - _shapes(config).keys():
        raise ValueError(f"NeMo has no place for {min(extra)}")
    converted["preprocessor.featurizer.window"] = torch.hann_window(400, periodic=False)
    converted["preprocessor.featurizer.fb"] = nemo_mel_filters(encoder.n_mels)[None]
    return settings_of(config, weights), converted


def nemo_name(name: str, config: ConformerModelConfig) -> str:
    """NeMo's name of a weight of `ConformerModel`."""
    for ours, theirs in _NAMES:
        name = name.replace(ours, theirs)
    if config.transducer is None:
        return name.replace("ctc.out.", "decoder.decoder_layers.0.")
    # The joint network is numbered with the dropout between activation and output, where there is one.
    out = f"joint.joint_net.{2 if config.transducer.dropout else 1}."
    return name.replace("ctc.out.", "ctc_decoder.decoder_layers.0.").replace("transducer.joiner.out.", out)


_NAMES = (
    ("encoder.subsampling.conv.stages.", "encoder.pre_encode.conv."),
    ("encoder.subsampling.out.", "encoder.pre_encode.out."),
    (".norm_attention.", ".norm_self_att."),
    (".attention.query.", ".self_attn.linear_q."),
    (".attention.key.", ".self_attn.linear_k."),
    (".attention.value.", ".self_attn.linear_v."),
    (".attention.out.", ".self_attn.linear_out."),
    (".attention.distance.", ".self_attn.linear_pos."),
    (".attention.content_bias", ".self_attn.pos_bias_u"),
    (".attention.distance_bias", ".self_attn.pos_bias_v"),
    (".conv.pointwise1.", ".conv.pointwise_conv1."),
    (".conv.depthwise.", ".conv.depthwise_conv."),
    (".conv.norm.", ".conv.batch_norm."),  # called so even where it is a LayerNorm
    (".conv.pointwise2.", ".conv.pointwise_conv2."),
    ("transducer.predictor.embedding.", "decoder.prediction.embed."),
    ("transducer.predictor.lstm.", "decoder.prediction.dec_rnn.lstm."),
    ("transducer.joiner.enc.", "joint.enc."),
    ("transducer.joiner.pred.", "joint.pred."),
)


def _unit_dimensions(theirs: str) -> int:
    """How many dimensions of length 1 NeMo's weight ends with: it is a convolution where ours is a linear layer."""
    if re.search(r"pre_encode\.conv\.[36]\.weight$", theirs):
        return 2
    return int(re.search(r"(pointwise_conv[12]|decoder_layers\.0)\.weight$", theirs) is not None)


def _shapes(config: ConformerModelConfig) -> dict[str, torch.Size]:
    with Skeletons():
        return {name: weight.shape for name, weight in ConformerModel(config).state_dict().items()}


def _taken(weights: dict[str, Tensor], name: str, shape: torch.Size) -> Tensor:
    """Remove a weight from `weights`, and give it our shape."""
    weight = weights.pop(name, None)
    if weight is None:
        raise ValueError(f"the weight {name} is missing")
    expected = (*shape, *[1] * _unit_dimensions(name))
    if weight.shape != expected:
        raise ValueError(f"{name} has shape {list(weight.shape)}, expected {list(expected)}")
    return weight.reshape(shape)


def _explain_unknown(names: list[str]) -> str:
    if any(name.startswith("prompt_kernel.") for name in names):
        return "the encoder is followed by a network that reads a language prompt (prompt_kernel), which is not built"
    return f"{len(names)} weights have no place in a streaming FastConformer, such as {min(names)}"
