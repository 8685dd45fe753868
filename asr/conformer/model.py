"""A whole Conformer recogniser: features, encoder, CTC and transducer heads, and its folder on disk."""

from __future__ import annotations

import dataclasses
import json
import os
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import safetensors.torch
import torch
from torch import Tensor, nn

from loquent.asr.conformer.adaptive import AdaptiveConformerEncoder
from loquent.asr.conformer.encoder import MOST_FRAMES, ConformerConfig, ConformerEncoder, Schedule
from loquent.asr.conformer.tokenizer import SubwordTokenizer
from loquent.asr.heads.ctc import CTCHead
from loquent.asr.heads.transducer import Transducer, TransducerConfig
from loquent.speech.audio.features import NemoLogMel, RunningNormalize
from loquent.speech.json_files import read_json_object
from loquent.speech.nn.skeleton import Skeletons
from loquent.speech.nn.streaming import Chain
from loquent.speech.sizes import check_sizes
from loquent.speech.weight_files import check_finite, read_weights

MODEL_TYPE = "loquent-conformer"


@dataclass(frozen=True)
class ConformerModelConfig:
    """What a Conformer recogniser is made of.

    Raises:
        ValueError: parts that do not fit each other.
    """

    encoder: ConformerConfig
    vocabulary: int  # tokens, without the blank
    ctc: bool = True
    transducer: TransducerConfig | None = None
    language: str = "en"  # code
    adaptive_lookahead: int = 0  # frames that each layer may look ahead as it sees fit; 0: encoder.lookaheads instead
    fixed_statistics: bool = False  # normalise each mel bin by a mean and deviation that the weights hold
    running_statistics: bool = False  # or by those of the stream so far

    def __post_init__(self) -> None:
        check_sizes(self, {"vocabulary": 2**20})
        check_sizes(self, {"adaptive_lookahead": MOST_FRAMES}, least=0)
        flags = (self.ctc, self.fixed_statistics, self.running_statistics)
        if not all(isinstance(flag, bool) for flag in flags) or not isinstance(self.language, str):
            raise ValueError(f"expected truth values and a language, got {(*flags, self.language)}")
        if self.fixed_statistics and self.running_statistics:
            raise ValueError("features are normalised by fixed statistics or by running ones, not by both")
        if not (self.ctc or self.transducer):
            raise ValueError("a recogniser needs a head: set ctc=True, give a transducer, or both")
        if self.transducer and (self.transducer.vocabulary, self.transducer.encoder_dim) != (
            self.vocabulary,
            self.encoder.dim,
        ):
            raise ValueError(
                f"the transducer is for {self.transducer.vocabulary} tokens and encoder frames of "
                f"{self.transducer.encoder_dim}, the model has {self.vocabulary} and {self.encoder.dim}"
            )

    def to_dict(self) -> dict[str, Any]:
        """JSON-able values."""
        return {"model_type": MODEL_TYPE} | dataclasses.asdict(self)

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> ConformerModelConfig:
        """Inverse of `to_dict`.

        Raises:
            ValueError: the values are not those of a Conformer.
        """
        values = dict(values)
        if values.pop("model_type", None) != MODEL_TYPE:
            raise ValueError(f"config.json does not say model_type {MODEL_TYPE!r}")
        try:
            encoder = dict(values.pop("encoder"))
            encoder["lookaheads"] = tuple(encoder["lookaheads"])
            transducer = values.pop("transducer", None)
            return cls(
                encoder=ConformerConfig(**encoder),
                transducer=transducer and TransducerConfig(**transducer),
                **values,
            )
        except (KeyError, TypeError, ValueError) as error:
            raise ValueError(f"config.json is not that of a Conformer: {error}") from error


class ConformerModel(nn.Module):
    """Samples at 16 kHz to encoder frames, and the heads that read them.

    Attributes:
        features, encoder: streaming modules, samples to log-mel frames to encoder frames.
        ctc, transducer: heads, None where the model has none.
    """

    mean: Tensor  # (F,)
    deviation: Tensor  # (F,)

    def __init__(self, config: ConformerModelConfig) -> None:
        super().__init__()
        self.config = config
        n_mels = config.encoder.n_mels
        self.features: Chain = NemoLogMel(n_mels)
        if config.running_statistics:
            self.features = Chain(*self.features.stages, RunningNormalize(n_mels))
        self.encoder = (
            AdaptiveConformerEncoder(config.encoder, config.adaptive_lookahead)
            if config.adaptive_lookahead
            else ConformerEncoder(config.encoder)
        )
        self.ctc = CTCHead(config.encoder.dim, config.vocabulary) if config.ctc else None
        self.transducer = Transducer(config.transducer) if config.transducer else None
        if config.fixed_statistics:
            self.register_buffer("mean", torch.zeros(config.encoder.n_mels))
            self.register_buffer("deviation", torch.ones(config.encoder.n_mels))

    def forward(
        self, samples: Tensor, length: Tensor | None = None, lookahead: int | Schedule | None = None
    ) -> tuple[Tensor, Tensor]:
        """Encode whole recordings.

        Args:
            samples: (B, N) float32 at 16 kHz; what lies beyond a row's length is ignored.
            length: (B,) int64, valid samples; all by default.
            lookahead: as for `ConformerEncoder.forward`.

        Returns:
            Encoder frames (B, T, dim), and how many of each row are valid (B,).
        """
        mel, frames = self.log_mel(samples, length)
        return self.encoder(mel, frames, lookahead), self.encoder.output_length(frames)

    def log_mel(self, samples: Tensor, length: Tensor | None = None) -> tuple[Tensor, Tensor]:
        """Log-mel frames (B, T, F) of whole recordings (B, N), and how many of each row are valid (B,)."""
        if length is None:
            length = torch.full((samples.shape[0],), samples.shape[1], device=samples.device)
        emphasise, *transforms = self.features.stages
        inside = torch.arange(samples.shape[1], device=samples.device) < length[:, None]
        x = torch.where(inside, emphasise(samples), 0)
        for transform in transforms:
            x = transform(x)
        return self.normalize(x), length // 160

    def normalize(self, mel: Tensor) -> Tensor:
        """Frames (…, F) from `features`, by the statistics in the weights if there are any."""
        return (mel - self.mean) / self.deviation if self.config.fixed_statistics else mel

    @classmethod
    def from_pretrained(cls, folder: str | os.PathLike[str]) -> tuple[ConformerModel, SubwordTokenizer]:
        """Read a model that `save_pretrained` wrote, in evaluation mode and float32.

        Raises:
            ValueError: a file is damaged, or the parts do not fit.
            FileNotFoundError: one is missing.
        """
        folder = Path(folder)
        try:
            config = ConformerModelConfig.from_dict(read_json_object(folder / "config.json"))
            weights = read_weights(folder / "model.safetensors")
        except ValueError as error:
            raise ValueError(f"cannot read the model in {folder}: {error}") from error
        tokenizer = SubwordTokenizer.load(folder)
        if tokenizer.vocab_size != config.vocabulary:
            raise ValueError(
                f"the tokenizer in {folder} has {tokenizer.vocab_size} tokens, the model {config.vocabulary}"
            )
        return cls.from_weights(config, weights), tokenizer

    @classmethod
    def from_weights(cls, config: ConformerModelConfig, weights: dict[str, Tensor]) -> ConformerModel:
        """Build a model from weights under this module's names, in evaluation mode and float32.

        Raises:
            ValueError: tensors are missing, superfluous or of another shape.
        """
        with Skeletons():
            model = cls(config)
        expected = {name: tensor.shape for name, tensor in model.state_dict().items()}
        if expected.keys() != weights.keys():
            missing, extra = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
            raise ValueError(f"weights do not fit the configuration: missing {missing[:5]}, not expected {extra[:5]}")
        for name, shape in expected.items():
            if weights[name].shape != shape:
                raise ValueError(f"{name} has shape {tuple(weights[name].shape)}, expected {tuple(shape)}")
            check_finite(name, weights[name])
        model.load_state_dict({n: w.float() if w.is_floating_point() else w for n, w in weights.items()}, assign=True)
        return model.eval()

    def save_pretrained(
        self, folder: str | os.PathLike[str], tokenizer: SubwordTokenizer, dtype: torch.dtype = torch.float32
    ) -> None:
        """Write config.json, model.safetensors and tokenizer.model; ``dtype`` float16 halves the size."""
        folder = Path(folder)
        folder.mkdir(parents=True, exist_ok=True)
        weights = {n: w.to(dtype) if w.is_floating_point() else w for n, w in self.state_dict().items()}
        text = json.dumps(self.config.to_dict(), indent=2) + "\n"
        (folder / "config.json").write_text(text, encoding="utf-8")
        safetensors.torch.save_file({n: w.contiguous() for n, w in weights.items()}, folder / "model.safetensors")
        (folder / "tokenizer.model").write_bytes(tokenizer.to_bytes())
