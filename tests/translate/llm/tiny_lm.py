"""Tiny causal language models with random weights, and a tokenizer for them."""

from __future__ import annotations

import random
from functools import cache
from typing import Any

import pytest
import torch
from tokenizers import AddedToken, Tokenizer, decoders, models, pre_tokenizers, trainers

from loquent.speech.lm.decoder_config import DecoderConfig
from loquent.speech.lm.language_model import LanguageModel
from loquent.translate.llm.model import LanguageModelTranslator
from loquent.translate.llm.settings import LanguageModelSettings

MARKS = ("<|im_start|>", "<|im_end|>", "<|end-of-read|>", "<|end-of-write|>")
SYLLABLES = [c + v for c in "bdfgklmnprstvz" for v in "aeiou"]
SETTINGS = {
    "prompt": {"before": "<|im_start|>{source}:", "between": "<|im_end|>\n<|im_start|>", "end": ("<|im_end|>",)},
    "grouped": {"before": "<|im_start|>{source}:", "between": "<|im_start|>", "end": ("<|im_end|>",), "offset": 2},
    "interleaved": {"before": "<|im_start|>{latency}"},
}


def made_up(words: int, seed: int) -> str:
    """A text of words that are a few syllables each."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(words))


@cache
def tiny_tokenizer() -> Tokenizer:
    """Byte-level pieces of made-up words, with marks."""
    tokenizer = Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    trainer = trainers.BpeTrainer(
        vocab_size=400, initial_alphabet=pre_tokenizers.ByteLevel.alphabet(), show_progress=False
    )
    tokenizer.train_from_iterator([made_up(8, seed) for seed in range(200)], trainer)
    tokenizer.add_special_tokens([AddedToken(mark, special=True) for mark in MARKS])
    return tokenizer


def hugging_face(kind: str = "Llama", **values: Any) -> Any:
    """A tiny model of transformers with random weights."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(3)
    shape = {
        "vocab_size": 408,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 3,
        "num_attention_heads": 4,
        "num_key_value_heads": 2,
    }
    config = getattr(transformers, f"{kind}Config")(**shape | values)
    model = getattr(transformers, f"{kind}ForCausalLM")(config).eval()
    for name, parameter in model.named_parameters():
        torch.nn.init.normal_(parameter, mean=float("norm" in name), std=0.25)
    return model


def translator(theirs: Any, layout: str, **changes: Any) -> LanguageModelTranslator:
    """The same model as ours."""
    config = DecoderConfig.from_hugging_face(theirs.config.to_dict())
    weights = {name: weight.clone() for name, weight in theirs.state_dict().items()}
    settings = LanguageModelSettings("en", "es", layout, **{**SETTINGS[layout], **changes})  # type: ignore[arg-type]
    return LanguageModelTranslator(LanguageModel.from_weights(config, weights), tiny_tokenizer(), settings)
