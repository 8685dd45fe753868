"""Recordings are recognised by a view of the model in int8."""

from __future__ import annotations

import copy
from collections.abc import Callable

import torch

from loquent.asr.whisper.lora import LoraAdapter
from loquent.asr.whisper.model import Whisper
from loquent.asr.whisper.quantization import int8_layers, quantize_int8
from loquent.asr.whisper.recognizer import WhisperRecognizer
from loquent.asr.whisper.tokenizer import WhisperTokenizer


def encoded(model: Whisper) -> torch.Tensor:
    with torch.inference_mode():
        features: torch.Tensor = model.encoder(torch.randn(1, 200, 80, generator=torch.Generator().manual_seed(0)))
        return features


def test_the_view_is_close_to_the_model_and_leaves_it_alone(toy_whisper: Whisper) -> None:
    before, weights = encoded(toy_whisper), toy_whisper.state_dict()
    view = int8_layers(toy_whisper)
    error = (encoded(view) - before).norm() / before.norm()
    assert 0 < error < 0.05
    assert torch.equal(encoded(toy_whisper), before)
    assert toy_whisper.state_dict().keys() == weights.keys()
    assert view.decoder.token_embedding.weight is toy_whisper.decoder.token_embedding.weight


def test_only_an_int8_model_is_seen_so_and_an_adapter_is_taken_up(
    toy_whisper: Whisper, tokenizer: WhisperTokenizer, random_adapter: Callable[..., LoraAdapter]
) -> None:
    assert WhisperRecognizer(toy_whisper, tokenizer)._decoder.model is toy_whisper
    recognizer = WhisperRecognizer(quantize_int8(copy.deepcopy(toy_whisper)), tokenizer)
    before = encoded(recognizer._decoder.model)
    recognizer.adapt(random_adapter(recognizer.model, 1))
    adapted = encoded(recognizer.model)
    after = encoded(recognizer._decoder.model)
    assert (after - adapted).norm() < 0.1 * (before - adapted).norm()
