"""Builds the models of a CosyVoice folder from its files."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from loquent.speech.json_files import read_json_object
from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.weight_files import check_weight, read_weights
from loquent.tts.cosyvoice.config import CosyVoiceConfig
from loquent.tts.cosyvoice.text_tokenizer import END_OF_PROMPT, TextTokenizer
from loquent.tts.flow.cosyvoice_weights import from_cosyvoice
from loquent.tts.flow.masks import ChunkMask
from loquent.tts.flow.token_flow import Inference, TokenFlow
from loquent.tts.lm.layout import SpeechLayout
from loquent.tts.lm.model import SpeechLanguageModel
from loquent.tts.vocoder.hift import Hift

LANGUAGE_MODEL = "CosyVoice-BlankEN"  # folder with the shape and the tokenizer of the language model
LEFT_CHUNKS = 2  # that a chunk of the flow sees before its own


@dataclass
class Parts:
    """The models of a checkpoint."""

    tokenizer: TextTokenizer
    language_model: SpeechLanguageModel
    flow: TokenFlow
    vocoder: Hift

    def to(self, device: torch.device) -> Parts:
        """The models on a device."""
        for model in (self.language_model, self.flow, self.vocoder):
            model.to(device)
        return self


def load_parts(folder: Path, config: CosyVoiceConfig, how: Inference | None, capacity: int) -> Parts:
    """Read the weights of a folder; the models are in evaluation mode, in float32 and on the CPU.

    Args:
        how: the flow is solved; as upstream unless given, but that a chunk sees two chunks before it.
        capacity: steps of an utterance in the language model.

    Raises:
        FileNotFoundError: a file is missing.
        ValueError: a file is damaged or unsafe, or the parts do not fit each other; the message says which.
    """
    inner = folder / LANGUAGE_MODEL
    try:
        shape = DecoderConfig.from_hugging_face(read_json_object(inner / "config.json"))
    except ValueError as error:
        raise ValueError(f"{inner}: {error}") from error
    tokenizer = TextTokenizer.load(inner, config.version)
    if tokenizer.size > shape.vocabulary:
        raise ValueError(f"{inner}: the tokenizer has {tokenizer.size} tokens, the model {shape.vocabulary}")
    mask = ChunkMask.of_chunks(config.chunk, LEFT_CHUNKS)
    return Parts(
        tokenizer,
        _language_model(folder / "llm.pt", config, shape, tokenizer, capacity),
        _flow(folder / "flow.pt", config, how or Inference(mask, guidance=config.guidance)),
        _vocoder(folder / "hift.pt", config),
    )


def _language_model(
    file: Path, config: CosyVoiceConfig, shape: DecoderConfig, tokenizer: TextTokenizer, capacity: int
) -> SpeechLanguageModel:
    if config.version == 2:
        layout = SpeechLayout.cosyvoice2(shape.vocabulary, config.codes, config.blocks)
    else:
        end = tokenizer.end_of_prompt
        if end is None:
            raise ValueError(f"the text tokenizer has no {END_OF_PROMPT}")
        layout = SpeechLayout.cosyvoice3(shape.vocabulary, config.codes, config.blocks, end)
    weights = _weights(file)
    try:
        return SpeechLanguageModel.from_weights(shape, layout, weights, capacity)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _flow(file: Path, config: CosyVoiceConfig, how: Inference) -> TokenFlow:
    weights = _weights(file)
    try:
        for name, weight in weights.items():
            check_weight(name, weight)
        found, converted = from_cosyvoice(weights, config.head_size)
        if found.vocabulary < config.codes or found.estimator.bins != config.hift.in_channels:
            raise ValueError(
                f"it takes {found.vocabulary} speech tokens and gives {found.estimator.bins} mel bins, "
                f"the settings have {config.codes} and {config.hift.in_channels}"
            )
        flow = TokenFlow(found, how)
        flow.load_state_dict(converted)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error
    return flow.eval()


def _vocoder(file: Path, config: CosyVoiceConfig) -> Hift:
    weights = _weights(file)
    try:
        return Hift.from_weights(config.hift, weights)
    except ValueError as error:
        raise ValueError(f"{file}: {error}") from error


def _weights(file: Path) -> dict[str, Tensor]:
    """Tensors of a file; what a training run notes beside them, such as its epoch, is left out."""
    if not file.is_file():
        raise FileNotFoundError(f"no such file: {file}")
    return {name: value for name, value in read_weights(file).items() if isinstance(value, Tensor)}
