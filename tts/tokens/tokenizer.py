"""Speech to tokens: an encoder and a quantiser; and the S3 tokenizer of CosyVoice 2 and 3, from its released files."""

from __future__ import annotations

import os
import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor

from loquent.speech.audio.features import WhisperLogMel, normalize_window
from loquent.speech.nn.skeleton import Skeletons
from loquent.speech.nn.state import State
from loquent.speech.nn.streaming import Chunk, StreamingModule, as_chunk
from loquent.speech.weight_files import check_weight, read_weights
from loquent.tts.tokens.encoder import TokenEncoder, TokenEncoderConfig
from loquent.tts.tokens.finite_scalar import FiniteScalarQuantizer
from loquent.tts.tokens.group_residual import GroupResidualQuantizer
from loquent.tts.tokens.onnx_weights import read_onnx_weights

LONGEST_S = 30  # of a recording, as in upstream's front end
SAMPLE_RATE = 16_000


class SpeechTokenizer(StreamingModule):
    """Normalised log-mel frames (B, T, F) to the codes of tokens: (B, T'), or (B, T', codebooks).

    Args:
        encoder: to one hidden frame per token.
        quantizer: of each hidden frame; it needs no state.
    """

    def __init__(self, encoder: StreamingModule, quantizer: FiniteScalarQuantizer | GroupResidualQuantizer) -> None:
        super().__init__()
        self.encoder, self.quantizer = encoder, quantizer

    def forward(self, x: Tensor) -> Tensor:
        """Codes of whole inputs, int64."""
        return self.quantizer.encode(self.encoder(x))

    def initial_state(self, batch: int) -> State:
        """That of the encoder."""
        return self.encoder.initial_state(batch)

    def step(self, x: Chunk | Tensor, state: State, rows: Tensor | None = None, last: bool = False) -> Chunk:
        """Codes that have become final."""
        hidden = self.encoder.step(as_chunk(x, last), state, rows)
        return hidden.with_data(self.quantizer.encode(hidden.data))

    def inputs_for(self, outputs: int) -> int:
        """Those of the encoder."""
        return self.encoder.inputs_for(outputs)


class S3Tokenizer(SpeechTokenizer):
    """The supervised semantic tokenizer of CosyVoice 2 (arXiv 2412.10117) and 3: 25 tokens a second, of 6561 codes.

    Without a block its tokens are those of upstream's `s3tokenizer`. With one it streams under that mask, for which the
    released weights were not trained.
    """

    def __init__(self, config: TokenEncoderConfig) -> None:
        super().__init__(TokenEncoder(config), FiniteScalarQuantizer(config.dim))
        self.config = config
        self.features = WhisperLogMel(config.n_mels, mirrored_end=True)

    @classmethod
    def from_weights(
        cls, weights: Mapping[str, Tensor], *, head_dim: int = 64, block: int | None = None, left_context: int = 250
    ) -> S3Tokenizer:
        """A tokenizer in evaluation mode; its sizes are those of the weights.

        Args:
            weights: under s3tokenizer's names.
            head_dim: channels of a head, which no weight tells.
            block, left_context: see `TokenEncoderConfig`.

        Raises:
            ValueError: weights are missing, unknown or of other shapes.
        """
        weights = {name.replace("quantizer._codebook.", "quantizer."): weight for name, weight in weights.items()}
        try:
            stem, memory = weights["encoder.conv1.weight"], weights["encoder.blocks.0.attn.fsmn_block.weight"]
        except KeyError as error:
            raise ValueError(f"there is no weight {error}: expected those of a speech tokenizer v2 or v3") from None
        if stem.ndim != 3 or memory.ndim != 3:
            raise ValueError(f"expected weights of convolutions, got {list(stem.shape)} and {list(memory.shape)}")
        found = [int(match[1]) for name in weights if (match := re.match(r"encoder\.blocks\.(\d{1,4})\.", name))]
        config = TokenEncoderConfig(
            n_mels=stem.shape[1],
            dim=stem.shape[0],
            head_dim=head_dim,
            layers=max(found) + 1,
            kernel=memory.shape[2],
            block=block,
            left_context=left_context,
        )
        with Skeletons():
            tokenizer = cls(config)
        expected = tokenizer.state_dict()
        if expected.keys() != weights.keys():
            missing, unknown = sorted(expected.keys() - weights.keys()), sorted(weights.keys() - expected.keys())
            raise ValueError(f"not a speech tokenizer: missing {missing[:4]}, unknown {unknown[:4]}")
        for name, weight in weights.items():
            check_weight(name, weight, expected[name].shape)
        tokenizer.load_state_dict({name: weight.float() for name, weight in weights.items()}, assign=True)
        return tokenizer.eval()

    @torch.inference_mode()
    def tokens_of(self, samples: Tensor) -> Tensor:
        """Tokens of a recording.

        Args:
            samples: (N,) float32 at 16 kHz, at most 30 s.

        Returns:
            (T,) int64, about N / 640.

        Raises:
            ValueError: it is longer; cut it.
        """
        if samples.ndim != 1 or len(samples) > LONGEST_S * SAMPLE_RATE:
            raise ValueError(
                f"expected one channel of at most {LONGEST_S} s at {SAMPLE_RATE} Hz, got shape {list(samples.shape)}"
            )
        if len(samples) < self.features.window.stride:
            return torch.zeros(0, dtype=torch.long, device=samples.device)
        frames = normalize_window(self.features(samples[None]))
        return self(frames)[0]


def load_s3_tokenizer(
    file: str | os.PathLike[str], *, head_dim: int = 64, block: int | None = None, left_context: int = 250
) -> S3Tokenizer:
    """Read `speech_tokenizer_v2.onnx` or `speech_tokenizer_v3.onnx`, or PyTorch or safetensors weights of s3tokenizer.

    Args:
        file: its path; a name that ends with `.onnx` needs the package `onnx`.
        head_dim, block, left_context: see `TokenEncoderConfig`.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, unsafe, or holds another model.
        ImportError: `onnx` is not installed.
    """
    path = Path(file)
    try:
        weights = read_onnx_weights(path) if path.suffix == ".onnx" else read_weights(path)
        return S3Tokenizer.from_weights(weights, head_dim=head_dim, block=block, left_context=left_context)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from error
