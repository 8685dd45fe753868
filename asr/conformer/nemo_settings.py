"""What NeMo's `model_config.yaml` says of a streaming FastConformer, and how to say it of one of ours.

Sizes are read from the weights, and only what weights cannot tell from the settings. What could not be streamed with
the results of the whole recording is refused with the reason.
"""

from __future__ import annotations

import math
import re
from collections.abc import Mapping, Sequence
from typing import Any, Literal

import torch
from torch import Tensor

from loquent.asr.conformer.encoder import ConformerConfig
from loquent.asr.conformer.model import ConformerModelConfig
from loquent.asr.heads.transducer import TransducerConfig
from loquent.speech.audio.features import mel_filters

Statistics = tuple[Sequence[float] | Tensor, Sequence[float] | Tensor]  # mean and deviation of each mel bin

_MODULES = "nemo.collections.asr.modules"
_MODELS = "nemo.collections.asr.models"


def check_features(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> None:
    """Refuse features that are not those of `NemoLogMel`."""
    section = "preprocessor"
    _expect(settings, f"{section}.sample_rate", 16000)
    _expect(settings, f"{section}.window_stride", 0.01)
    _expect(settings, f"{section}.window_size", 0.025, default=0.02)
    _expect(settings, f"{section}.window", "hann")
    _expect(settings, f"{section}.n_fft", 512, default=512)
    _expect(settings, f"{section}.preemph", 0.97)
    _expect(settings, f"{section}.log", True)
    _expect(settings, f"{section}.log_zero_guard_type", "add")
    _expect(settings, f"{section}.log_zero_guard_value", 2**-24)
    _expect(settings, f"{section}.mag_power", 2.0)
    _expect(settings, f"{section}.frame_splicing", 1)
    _expect(settings, f"{section}.exact_pad", False)
    filters = weights.get("preprocessor.featurizer.fb")
    if filters is not None:
        ours = nemo_mel_filters(filters.shape[1])[None] if filters.ndim == 3 else None
        if ours is None or filters.shape != ours.shape or not torch.allclose(filters.float(), ours, atol=1e-4):
            raise ValueError("the mel filters in the file are not Slaney's from 0 to 8000 Hz, the only ones built")


def nemo_mel_filters(n_mels: int) -> Tensor:
    """Slaney's mel filters as `preprocessor.featurizer.fb` holds them, (F, 257) float32."""
    return mel_filters(257, n_mels, 16000).float().T.contiguous()


def feature_statistics(
    settings: Mapping[str, Any], given: Statistics | Literal["running"] | None
) -> tuple[tuple[Tensor, Tensor] | Literal["running"] | None, tuple[str, ...]]:
    """Mean and deviation (F,) of each mel bin to normalise with, if any, and warnings if that is inexact."""
    kind = _get(settings, "preprocessor.normalize", "per_feature")
    warnings: tuple[str, ...] = ()
    if isinstance(kind, Mapping) and kind.keys() >= {"fixed_mean", "fixed_std"}:
        if given is not None:
            raise ValueError("the model brings its own feature statistics (fixed_mean, fixed_std); give none")
        given = kind["fixed_mean"], kind["fixed_std"]
    elif kind in ("per_feature", "all_features"):
        if given is None:
            raise ValueError(
                f"normalize: {kind} uses the mean and deviation of the whole recording, which a stream does not have. "
                "Pass feature_statistics='running' to stream it with those of the stream so far, or (mean, deviation) "
                "of each mel bin over typical speech; both are inexact and cost accuracy. docs/topics/conformer.md "
                "shows how to make a folder for --model: load_nemo(…, feature_statistics='running') and save_pretrained"
            )
        what = "running statistics" if given == "running" else "fixed statistics"
        warnings = (f"normalize: {kind} of the whole recording is replaced by {what}, which is inexact",)
        if given == "running":
            return "running", warnings
    elif given is not None:
        raise ValueError(f"the model does not normalise its features (normalize: {kind}); give no feature_statistics")
    if given is None:
        return None, warnings
    n_mels = _get(settings, "preprocessor.features", 64)
    try:
        mean, deviation = (torch.as_tensor(values, dtype=torch.float32).flatten() for values in given)
    except (TypeError, ValueError, RuntimeError) as error:
        raise ValueError(f"feature statistics are not numbers: {error}") from error
    if (
        len(mean) != n_mels
        or len(deviation) != n_mels
        or not (deviation > 0).all()
        or not (mean + deviation).isfinite().all()
    ):
        raise ValueError(f"expected the finite mean and positive deviation of {n_mels} mel bins")
    return (mean, deviation), warnings


def encoder_config(settings: Mapping[str, Any], weights: Mapping[str, Tensor]) -> ConformerConfig:
    """Shape of the encoder; refuses what cannot be streamed."""
    if not str(_get(settings, "encoder._target_", "ConformerEncoder")).endswith(".ConformerEncoder"):
        raise ValueError(f"the encoder is {_get(settings, 'encoder._target_', None)!r}, expected a ConformerEncoder")
    _expect(settings, "encoder.subsampling", "dw_striding", default="striding")
    _expect(settings, "encoder.subsampling_factor", 8, default=4)
    _expect(settings, "encoder.self_attention_model", "rel_pos")
    _expect(settings, "encoder.reduction", None)
    _expect(settings, "encoder.global_tokens", 0)
    if not _get(settings, "encoder.causal_downsampling", False):
        raise ValueError(
            "the subsampling is not causal (causal_downsampling: false): its convolutions see later audio than a "
            "stream has; only models trained for cache-aware streaming can be loaded"
        )
    norm = _get(settings, "encoder.conv_norm_type", "batch_norm")
    if norm not in ("layer_norm", "batch_norm"):
        raise ValueError(f"conv_norm_type: {norm} normalises over time; expected layer_norm or batch_norm")

    first = "encoder.layers.0"
    heads = weight_size(weights, f"{first}.self_attn.pos_bias_u", 0)
    dim = weight_size(weights, "encoder.pre_encode.out.weight", 0)
    kernel = weight_size(weights, f"{first}.conv.depthwise_conv.weight", 2)
    context = _get(settings, "encoder.conv_context_size", None)
    if context != "causal" and context != [kernel - 1, 0]:
        raise ValueError(
            f"conv_context_size: {context} lets every layer see later frames; expected causal or [{kernel - 1}, 0]"
        )
    left, lookaheads = _attention_context(settings)
    numbers = sorted({int(found[1]) for name in weights if (found := re.match(r"encoder\.layers\.(\d+)\.", name))})
    if numbers[-1] != len(numbers) - 1:
        raise ValueError(f"the encoder has layers {', '.join(map(str, numbers))}; some are missing")
    n_mels = _get(settings, "preprocessor.features", 64)
    return ConformerConfig(
        n_mels=_checked_size("preprocessor.features", n_mels),
        dim=dim,
        layers=len(numbers),
        heads=heads,
        feed_forward=max(weight_size(weights, f"{first}.feed_forward1.linear1.weight", 0) // dim, 1),
        conv_kernel=kernel,
        subsampling_channels=weight_size(weights, "encoder.pre_encode.conv.0.weight", 0),
        left_context=left,
        lookaheads=lookaheads,
        xscaling=bool(_get(settings, "encoder.xscaling", True)),
        bias=f"{first}.feed_forward1.linear1.bias" in weights,
        conv_norm=norm,
        dropout=_fraction(settings, "encoder.dropout", 0.1),
    )


def _attention_context(settings: Mapping[str, Any]) -> tuple[int, tuple[int, ...]]:
    """Left context and look-aheads, the default one first."""
    style = _get(settings, "encoder.att_context_style", "regular")
    given = _get(settings, "encoder.att_context_size", None)
    pairs = given if isinstance(given, list) and given and isinstance(given[0], list) else [given or [-1, -1]]
    if not all(isinstance(p, list) and len(p) == 2 and all(isinstance(n, int) for n in p) for p in pairs):
        raise ValueError(f"att_context_size: {given} is not a pair of numbers of frames, or a list of pairs")
    if any(left < 0 or right < 0 for left, right in pairs):
        raise ValueError(f"att_context_size: {given} has no bound (-1): attention would have to wait for the end")
    if style != "chunked_limited" and not (style == "regular" and all(right == 0 for _, right in pairs)):
        raise ValueError(
            f"att_context_style: {style} with att_context_size: {given} looks further ahead with every layer; expected "
            "chunked_limited"
        )
    if len({left for left, _ in pairs}) > 1:
        raise ValueError(f"att_context_size: {given} has several left contexts; expected one")
    return pairs[0][0], tuple(right for _, right in pairs)


def transducer_config(
    settings: Mapping[str, Any], weights: Mapping[str, Tensor], encoder_dim: int
) -> TransducerConfig | None:
    """Shape of the transducer, None without one."""
    if not any(name.startswith("joint.") for name in weights):
        return None
    durations = _get(settings, "model_defaults.tdt_durations", None) or _get(settings, "decoding.durations", None)
    if durations or _get(settings, "joint.num_extra_outputs", 0):
        raise ValueError(f"the transducer also predicts durations (TDT, {durations}); expected a plain RNN-T")
    if "decoder.prediction.embed.weight" not in weights:
        kind = _get(settings, "decoder._target_", None)
        raise ValueError(f"the prediction network is {kind!r}, expected RNNTDecoder")
    layers = [name for name in weights if name.startswith("decoder.prediction.dec_rnn.lstm.weight_ih_l")]
    if not layers:
        mode = _get(settings, "decoder.normalization_mode", None)
        raise ValueError(f"the prediction network's LSTM has normalization_mode: {mode}; expected none")
    dropout = _fraction(settings, "joint.jointnet.dropout", 0.0)
    out = f"joint.joint_net.{2 if dropout else 1}.weight"
    rows, outputs = weight_size(weights, "decoder.prediction.embed.weight", 0), weight_size(weights, out, 0)
    if rows != outputs:
        raise ValueError(
            f"the embedding of the prediction network has {rows} rows and the joint network {outputs} outputs; "
            "expected one for each token and the blank in both (blank_as_pad: true)"
        )
    greedy = _get(settings, "decoding.greedy", None)
    given = greedy if isinstance(greedy, Mapping) else {}
    activation = _get(settings, "joint.jointnet.activation", "relu")
    if activation not in ("relu", "tanh", "sigmoid"):
        raise ValueError(f"joint.jointnet.activation: {activation} is none of relu, tanh, sigmoid")
    max_symbols = given.get("max_symbols") or given.get("max_symbols_per_step") or 10
    return TransducerConfig(
        vocabulary=rows - 1,
        encoder_dim=encoder_dim,
        predictor_dim=weight_size(weights, "decoder.prediction.embed.weight", 1),
        predictor_layers=len(layers),
        joint_dim=weight_size(weights, out, 1),
        activation=activation,
        max_symbols=_checked_size("decoding.greedy.max_symbols", max_symbols),
        dropout=dropout,
    )


def settings_of(config: ConformerModelConfig, weights: Mapping[str, Tensor]) -> dict[str, Any]:
    """Content of `model_config.yaml`, without the tokenizer; feature statistics are among the weights."""
    encoder, transducer = config.encoder, config.transducer
    contexts = [[encoder.left_context, lookahead] for lookahead in encoder.lookaheads]
    normalize: Any = "per_feature" if config.running_statistics else "NA"
    if config.fixed_statistics:
        normalize = {"fixed_mean": weights["mean"].tolist(), "fixed_std": weights["deviation"].tolist()}
    ctc = {
        "_target_": f"{_MODULES}.ConvASRDecoder",
        "feat_in": encoder.dim,
        "num_classes": config.vocabulary,
        "vocabulary": [],  # NeMo takes the tokenizer's
    }
    settings: dict[str, Any] = {
        "sample_rate": 16000,
        "preprocessor": {
            "_target_": f"{_MODULES}.AudioToMelSpectrogramPreprocessor",
            "sample_rate": 16000,
            "normalize": normalize,
            "window_size": 0.025,
            "window_stride": 0.01,
            "window": "hann",
            "features": encoder.n_mels,
            "n_fft": 512,
            "frame_splicing": 1,
            "dither": 1e-5,
            "pad_to": 0,
        },
        "encoder": {
            "_target_": f"{_MODULES}.ConformerEncoder",
            "feat_in": encoder.n_mels,
            "feat_out": -1,
            "n_layers": encoder.layers,
            "d_model": encoder.dim,
            "use_bias": encoder.bias,
            "subsampling": "dw_striding",
            "subsampling_factor": 8,
            "subsampling_conv_channels": encoder.subsampling_channels,
            "causal_downsampling": True,
            "ff_expansion_factor": encoder.feed_forward,
            "self_attention_model": "rel_pos",
            "n_heads": encoder.heads,
            "att_context_size": contexts if len(contexts) > 1 else contexts[0],
            "att_context_style": "chunked_limited",
            "xscaling": encoder.xscaling,
            "pos_emb_max_len": 5000,
            "conv_kernel_size": encoder.conv_kernel,
            "conv_norm_type": encoder.conv_norm,
            "conv_context_size": "causal",
            "dropout": encoder.dropout,
            "dropout_pre_encoder": encoder.dropout,
            "dropout_emb": 0.0,
            "dropout_att": encoder.dropout,
        },
    }
    if transducer is None:
        return settings | {
            "decoder": ctc,
            "decoding": {"strategy": "greedy"},
            "target": f"{_MODELS}.ctc_bpe_models.EncDecCTCModelBPE",
        }
    settings |= {
        "model_defaults": {
            "enc_hidden": encoder.dim,
            "pred_hidden": transducer.predictor_dim,
            "joint_hidden": transducer.joint_dim,
        },
        "decoder": {
            "_target_": f"{_MODULES}.RNNTDecoder",
            "normalization_mode": None,
            "random_state_sampling": False,
            "blank_as_pad": True,
            "prednet": {
                "pred_hidden": transducer.predictor_dim,
                "pred_rnn_layers": transducer.predictor_layers,
                "t_max": None,
                "dropout": transducer.dropout,
            },
            "vocab_size": config.vocabulary,
        },
        "joint": {
            "_target_": f"{_MODULES}.RNNTJoint",
            "log_softmax": None,
            "fuse_loss_wer": False,
            "jointnet": {
                "joint_hidden": transducer.joint_dim,
                "activation": transducer.activation,
                "dropout": transducer.dropout,
            },
            "num_classes": config.vocabulary,
        },
        "decoding": {"strategy": "greedy_batch", "greedy": {"max_symbols": transducer.max_symbols}},
        "loss": {"loss_name": "default"},
        "target": f"{_MODELS}.rnnt_bpe_models.EncDecRNNTBPEModel",
    }
    if config.ctc:
        settings["aux_ctc"] = {"ctc_loss_weight": 0.3, "decoder": ctc, "decoding": {"strategy": "greedy"}}
        settings["target"] = f"{_MODELS}.hybrid_rnnt_ctc_bpe_models.EncDecHybridRNNTCTCBPEModel"
    return settings


def _get(settings: Mapping[str, Any], path: str, default: Any) -> Any:
    """The setting at a path such as `encoder.dropout`, or what NeMo takes where it is absent."""
    value: Any = settings
    for key in path.split("."):
        if not isinstance(value, Mapping) or key not in value:
            return default
        value = value[key]
    if isinstance(value, str) and "${" in value:
        raise ValueError(f"{path}: {value} refers to another setting; NeMo's save_to writes the values themselves")
    return value


_ABSENT = object()


def _expect(settings: Mapping[str, Any], path: str, expected: Any, default: Any = _ABSENT) -> None:
    """Refuse another value than the one that is built; what is absent is `expected` unless NeMo's default differs."""
    value = _get(settings, path, expected if default is _ABSENT else default)
    close = isinstance(value, float) and isinstance(expected, float) and math.isclose(value, expected, rel_tol=1e-6)
    if value != expected and not close:
        raise ValueError(f"{path}: {value} cannot be loaded, expected {expected}")


def weight_size(weights: Mapping[str, Tensor], name: str, axis: int) -> int:
    """Length of one axis of a weight; refuses weights that are missing or have no such axis."""
    if name not in weights:
        raise ValueError(f"the weight {name} is missing; expected a streaming FastConformer")
    if weights[name].ndim <= axis or weights[name].shape[axis] < 1:
        raise ValueError(f"{name} has shape {list(weights[name].shape)}")
    return weights[name].shape[axis]


def _checked_size(path: str, value: Any) -> int:
    if not isinstance(value, int) or not 1 <= value <= 100_000:
        raise ValueError(f"{path}: {value} is not a positive number")
    return value


def _fraction(settings: Mapping[str, Any], path: str, default: float) -> float:
    value = _get(settings, path, default) or 0.0
    if not isinstance(value, int | float) or not 0 <= value < 1:
        raise ValueError(f"{path}: {value} is not a fraction")
    return float(value)
