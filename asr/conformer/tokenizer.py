"""Subword tokens: a sentencepiece model, as NeMo's recognisers use it."""

from __future__ import annotations

import io
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path
from typing import Literal

from sentencepiece import SentencePieceProcessor, SentencePieceTrainer

_WORD_START = "▁"


class SubwordTokenizer:
    """Converts between text and token ids 0 … `vocab_size` - 1. Immutable: one serves any number of streams.

    Source: Kudo and Richardson 2018 (arXiv 1808.06226); NeMo's `SentencePieceTokenizer` gives the same ids and texts.
    """

    def __init__(self, model: bytes) -> None:
        """Read a serialised sentencepiece model.

        Raises:
            ValueError: the bytes are none.
        """
        self._model = bytes(model)
        self._processor = SentencePieceProcessor()
        try:
            self._processor.LoadFromSerializedProto(self._model)
        except Exception as error:  # RuntimeError or SystemError, by version
            raise ValueError(f"not a sentencepiece model ({len(self._model)} bytes): {error}") from error
        if not self._model:
            raise ValueError("not a sentencepiece model: it is empty")

    @classmethod
    def load(cls, path: str | Path) -> SubwordTokenizer:
        """Read a `tokenizer.model`, or that of a model folder.

        Raises:
            FileNotFoundError: there is none.
            ValueError: it is not a sentencepiece model.
        """
        path = Path(path)
        file = path / "tokenizer.model" if path.is_dir() else path
        if not file.is_file():
            raise FileNotFoundError(f"no sentencepiece model at {file}; a model folder holds it as tokenizer.model")
        try:
            return cls(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    @classmethod
    def from_bytes(cls, data: bytes) -> SubwordTokenizer:
        """Inverse of `to_bytes`."""
        return cls(data)

    @classmethod
    def train(
        cls, texts: Iterable[str], vocab_size: int, kind: Literal["unigram", "bpe", "char"] = "unigram"
    ) -> SubwordTokenizer:
        """Learn a vocabulary from texts.

        Args:
            texts: at least one; for "unigram" they must offer enough pieces, or fewer tokens than asked for result.
            vocab_size: number of tokens, the unknown one included.
            kind: how pieces are chosen; "char" makes every character a token.

        Raises:
            ValueError: the texts do not hold that many pieces, or there are none.
        """
        out = io.BytesIO()
        try:
            SentencePieceTrainer.Train(
                sentence_iterator=iter(list(texts)),
                model_writer=out,
                vocab_size=vocab_size,
                model_type=kind,
                character_coverage=1.0,
                hard_vocab_limit=False,
                bos_id=-1,
                eos_id=-1,
                minloglevel=2,
            )
        except RuntimeError as error:
            raise ValueError(f"cannot learn {vocab_size} {kind} tokens from these texts: {error}") from error
        return cls(out.getvalue())

    def to_bytes(self) -> bytes:
        """The sentencepiece model, to be kept as `tokenizer.model`."""
        return self._model

    @property
    def vocab_size(self) -> int:
        """Number of tokens; the blank that CTC and transducers add is not among them."""
        return self._processor.GetPieceSize()

    @property
    def unknown(self) -> int:
        """The token of characters that the vocabulary lacks."""
        return self._processor.unk_id()

    @cached_property
    def pieces(self) -> list[str]:
        """What each token stands for; "▁" marks the start of a word."""
        return [self._processor.IdToPiece(id_) for id_ in range(self.vocab_size)]

    def is_word_start(self, id_: int) -> bool:
        """Whether a token begins a word."""
        return self.pieces[id_].startswith(_WORD_START)

    def encode(self, text: str) -> list[int]:
        """Tokens of a text; characters that the vocabulary lacks become the unknown token."""
        return self._processor.EncodeAsIds(text)

    def decode(self, ids: Iterable[int]) -> str:
        """Text of the tokens, without a space at its start."""
        return self._processor.DecodeIds([int(id_) for id_ in ids])
