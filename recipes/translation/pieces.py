"""The pieces of words that a model reads and writes: SentencePiece, with bytes for what it has no piece for."""

from __future__ import annotations

import io
from collections.abc import Iterable
from pathlib import Path

from loquent.recipes.loop.config import ConfigError

TAGS = ("<en>", "<es>", "<de>", "<fr>", "<it>", "<pt>", "<nl>", "<x>")  # of languages; the last is for any other


def train_pieces(texts: Iterable[str], file: Path, vocabulary: int, seed: int) -> None:
    """Train a unigram model (Kudo 2018) and write it to ``file``.

    Args:
        texts: sentences of both languages.
        vocabulary: number of pieces, 256 bytes and the tags of languages included.

    Raises:
        ConfigError: the texts have not so many pieces.
    """
    import sentencepiece

    sentencepiece.set_random_generator_seed(seed)
    content = io.BytesIO()
    try:
        sentencepiece.SentencePieceTrainer.train(
            sentence_iterator=iter(texts),
            model_writer=content,
            vocab_size=vocabulary,
            model_type="unigram",
            byte_fallback=True,
            split_digits=True,
            character_coverage=0.9998,
            normalization_rule_name="identity",
            control_symbols=",".join(TAGS),
            pad_id=0,
            unk_id=1,
            bos_id=-1,
            eos_id=2,
            num_threads=1,  # the order of its sums changes the pieces
            minloglevel=2,
        )
    except RuntimeError as error:
        raise ConfigError(f"data.vocabulary: SentencePiece cannot make {vocabulary} pieces: {error}") from error
    file.parent.mkdir(parents=True, exist_ok=True)
    file.write_bytes(content.getvalue())
