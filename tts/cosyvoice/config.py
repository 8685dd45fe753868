"""Settings of a CosyVoice checkpoint, as its `cosyvoice2.yaml` or `cosyvoice3.yaml` tells them."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from loquent.tts.cosyvoice.yaml_values import YamlValues
from loquent.tts.lm.sampling import RepetitionAwareSampling
from loquent.tts.vocoder.hift import HiftConfig

FILES: dict[Literal[2, 3], str] = {2: "cosyvoice2.yaml", 3: "cosyvoice3.yaml"}
SILENT = (1, 2, 28, 29, 55, 248, 494, 2241, 2242, 2322, 2323)  # codes of silence and breath in CosyVoice 3
MEL = {"n_fft": 1920, "num_mels": 80, "sampling_rate": 24_000, "hop_size": 480, "win_size": 1920, "center": False}


@dataclass(frozen=True)
class CosyVoiceConfig:
    """What the parts of a checkpoint are made of, besides what their weights tell.

    version:   of CosyVoice.
    codes:     of speech. blocks: text and speech tokens that take turns.
    sampling:  of speech tokens.
    chunk:     speech tokens that the flow takes at a time.
    guidance:  of the flow. head_size: channels of a head of its estimator.
    hift:      the vocoder.
    f_max:     highest frequency of a prompt's mel, in Hz; None for all.
    silent:    codes of which no more than five in a row are spoken.
    """

    version: Literal[2, 3]
    codes: int = 6561
    blocks: tuple[int, int] = (5, 15)
    sampling: RepetitionAwareSampling = field(default_factory=RepetitionAwareSampling)
    chunk: int = 25
    guidance: float = 0.7
    head_size: int = 64
    hift: HiftConfig = field(default_factory=HiftConfig)
    f_max: float | None = 8000.0
    silent: tuple[int, ...] = ()

    @property
    def sample_rate(self) -> int:
        """Of the speech, in Hz."""
        return self.hift.sampling_rate

    @property
    def tokenizer_file(self) -> str:
        """Name of the speech tokenizer's file."""
        return f"speech_tokenizer_v{self.version}.onnx"

    @classmethod
    def read(cls, folder: Path) -> CosyVoiceConfig:
        """Of the folder of a checkpoint.

        Raises:
            FileNotFoundError: it has neither of the two files.
            ValueError: a value is missing, or of another model; the message names it.
        """
        for version, name in FILES.items():
            if (folder / name).is_file():
                try:
                    return _config_of(version, YamlValues.read(folder / name))
                except ValueError as error:
                    raise ValueError(f"{folder / name}: {error}") from error
        raise FileNotFoundError(f"{folder} has neither {' nor '.join(FILES.values())}: not a CosyVoice 2 or 3")


def _config_of(version: Literal[2, 3], values: YamlValues) -> CosyVoiceConfig:
    model = "Qwen2LM" if version == 2 else "CosyVoice3LM"
    if not values.tag("llm").endswith(f".{model}"):
        raise ValueError(f"llm is {values.tag('llm')[:60]!r}, expected a {model}")
    for name, expected in MEL.items():
        if (found := values["feat_extractor", name]) != expected:
            raise ValueError(f"feat_extractor.{name} is {str(found)[:40]!r}, expected {expected}")
    if (ratio := values["token_mel_ratio"]) != 2:
        raise ValueError(f"token_mel_ratio is {str(ratio)[:40]!r}, expected 2 frames for a token")
    estimator = ("flow", "decoder", "estimator")
    f_max = values["feat_extractor", "fmax"]
    text, speech = _whole_numbers(values, ("llm", "mix_ratio"), 2)
    return CosyVoiceConfig(
        version=version,
        codes=_whole(values, ("llm", "speech_token_size")),
        blocks=(text, speech),
        sampling=RepetitionAwareSampling(
            top_p=_number(values, ("llm", "sampling", "top_p")),
            top_k=_whole(values, ("llm", "sampling", "top_k")),
            window=_whole(values, ("llm", "sampling", "win_size")),
            repetition=_number(values, ("llm", "sampling", "tau_r")),
        ),
        chunk=_whole(values, ("chunk_size",)),
        guidance=_number(values, ("flow", "decoder", "cfm_params", "content", "inference_cfg_rate")),
        head_size=_whole(values, (*estimator, "attention_head_dim" if version == 2 else "dim_head")),
        hift=_hift_of(version, values),
        f_max=None if f_max is None else _number(values, ("feat_extractor", "fmax")),
        silent=SILENT if version == 3 else (),
    )


def _hift_of(version: Literal[2, 3], values: YamlValues) -> HiftConfig:
    whole = ("in_channels", "base_channels", "nb_harmonics", "sampling_rate")
    numbers = ("nsf_alpha", "nsf_sigma", "nsf_voiced_threshold", "lrelu_slope", "audio_limit")
    lists = ("upsample_rates", "upsample_kernel_sizes", "resblock_kernel_sizes", "source_resblock_kernel_sizes")
    nested = ("resblock_dilation_sizes", "source_resblock_dilation_sizes")
    shape: dict[str, Any] = {name: _whole(values, ("hift", name)) for name in whole}
    shape |= {name: _number(values, ("hift", name)) for name in numbers}
    shape |= {name: _whole_numbers(values, ("hift", name)) for name in lists}
    shape |= {name: _tuples(values, ("hift", name)) for name in nested}
    if version == 3:
        shape["conv_pre_look_right"] = _whole(values, ("hift", "conv_pre_look_right"))
    config = HiftConfig(
        n_fft=_whole(values, ("hift", "istft_params", "n_fft")),
        hop_len=_whole(values, ("hift", "istft_params", "hop_len")),
        f0_channels=_whole(values, ("hift", "f0_predictor", "cond_channels")),
        causal=version == 3,
        **shape,
    )
    if config.hop != MEL["hop_size"] or config.sampling_rate != MEL["sampling_rate"]:
        raise ValueError(
            f"hift makes {config.hop} samples of a frame at {config.sampling_rate} Hz, "
            f"expected {MEL['hop_size']} at {MEL['sampling_rate']} Hz"
        )
    return config


def _whole(values: YamlValues, place: tuple[str, ...]) -> int:
    value = values[place]
    if type(value) is not int or value < 1:
        raise ValueError(f"{'.'.join(place)} is {str(value)[:40]!r}, expected a whole number from 1")
    return value


def _number(values: YamlValues, place: tuple[str, ...]) -> float:
    value = values[place]
    if isinstance(value, bool) or not isinstance(value, int | float) or not 0 <= value <= 1e6:
        raise ValueError(f"{'.'.join(place)} is {str(value)[:40]!r}, expected a number from 0")
    return float(value)


def _whole_numbers(values: YamlValues, place: tuple[str, ...], count: int | None = None) -> tuple[int, ...]:
    value = values[place]
    if not isinstance(value, list) or any(type(one) is not int or one < 1 for one in value):
        raise ValueError(f"{'.'.join(place)} is {str(value)[:40]!r}, expected whole numbers from 1")
    if count is not None and len(value) != count:
        raise ValueError(f"{'.'.join(place)} is {str(value)[:40]!r}, expected {count} numbers")
    return tuple(value)


def _tuples(values: YamlValues, place: tuple[str, ...]) -> tuple[tuple[int, ...], ...]:
    value = values[place]
    if not isinstance(value, list) or any(
        not isinstance(one, list) or any(type(number) is not int or number < 1 for number in one) for one in value
    ):
        raise ValueError(f"{'.'.join(place)} is {str(value)[:40]!r}, expected lists of whole numbers from 1")
    return tuple(tuple(one) for one in value)
