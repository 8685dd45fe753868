"""A small encoder-decoder with random weights, and pieces for it."""

from __future__ import annotations

import io
import random
from functools import cache

import sentencepiece
import torch

from loquent.recipes.translation.pieces import TAGS
from loquent.translate.pieces import Pieces
from loquent.translate.seq2seq.config import Seq2SeqConfig
from loquent.translate.seq2seq.model import Seq2SeqTranslator
from loquent.translate.seq2seq.network import Seq2Seq

SYLLABLES = [c + v for c in "bcdfghklmnprstvz" for v in "aeiou"]


def made_up(words: int, seed: int) -> str:
    """A text of words that are a few syllables each."""
    rng = random.Random(seed)
    return " ".join("".join(rng.choices(SYLLABLES, k=rng.randint(1, 3))) for _ in range(words))


@cache
def toy_pieces() -> Pieces:
    """400 pieces of made-up words, with bytes and tags."""
    stream = io.BytesIO()
    sentencepiece.SentencePieceTrainer.train(
        sentence_iterator=iter([f"{made_up(8, seed).capitalize()}." for seed in range(400)]),
        model_writer=stream,
        vocab_size=400,
        model_type="unigram",
        byte_fallback=True,
        control_symbols=",".join(TAGS),
        pad_id=0,
        unk_id=1,
        bos_id=-1,
        eos_id=2,
        minloglevel=2,
    )
    return Pieces(stream.getvalue())


def toy_translator(decoder: str = "ssru", seed: int = 0) -> Seq2SeqTranslator:
    """A model that writes something for everything."""
    torch.manual_seed(seed)
    config = Seq2SeqConfig(toy_pieces().size, 32, 2, 64, 2, 2, decoder, left_context=24, memory=192)  # type: ignore[arg-type]
    network = Seq2Seq(config).eval()
    with torch.no_grad():
        network.embedding.weight[toy_pieces().end] *= 0.5
    return Seq2SeqTranslator(network, toy_pieces(), "en", "es")
