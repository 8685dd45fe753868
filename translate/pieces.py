"""The pieces of words that a model reads and writes."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import sentencepiece

SPACE = "▁"  # how SentencePiece writes the space before a word


class Pieces:
    """A SentencePiece model whose pieces never cross the border of a word, so that words can be encoded one by one.

    Args:
        model: the content of the model's file.

    Raises:
        ValueError: it is not one.
    """

    def __init__(self, model: bytes) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"not a SentencePiece model: {error}") from error
        self.content = model
        self.end = self._model.eos_id()
        self.size = len(self._model)
        names = [self._model.id_to_piece(piece) for piece in range(self.size)]
        self.begins_word = [name.startswith(SPACE) for name in names]
        self.exotic = [self._model.is_byte(piece) for piece in range(self.size)]
        self.inner = [byte or name[:1].isalnum() for byte, name in zip(self.exotic, names, strict=True)]
        self.silent = [
            self._model.is_control(p) or self._model.is_unknown(p) for p in range(self.size)
        ]  # never written
        self.silent[self.end] = False
        self.tags = {name[1:-1]: piece for piece, name in enumerate(names) if self._is_tag(piece, name)}

    @classmethod
    def load(cls, file: Path) -> Pieces:
        """Read a model's file.

        Raises:
            ValueError: it is not one; the message names it.
        """
        try:
            return cls(file.read_bytes())
        except ValueError as error:
            raise ValueError(f"{file}: {error}") from error

    def encode(self, text: str) -> list[int]:
        """Pieces of words; every word begins with one that stands for the space before it."""
        return self._model.encode(text)

    def decode(self, pieces: Sequence[int]) -> str:
        """The text of pieces, without the space before its first word."""
        return self._model.decode(list(pieces))

    def words(self, pieces: Sequence[int]) -> list[int]:
        """The number of the word that each piece belongs to, from 0."""
        numbers, word = [], -1
        for piece in pieces:
            word = max(word + self.begins_word[piece], 0)
            numbers.append(word)
        return numbers

    def _is_tag(self, piece: int, name: str) -> bool:
        return self._model.is_control(piece) and name[:1] == "<" and name[-1:] == ">" and name[1:2] != "/"
