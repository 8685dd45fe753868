"""The pieces of a Marian model: a SentencePiece model, whose pieces another file may number."""

from __future__ import annotations

from collections.abc import Mapping, Sequence

import sentencepiece

from loquent.speech.text.languages import SPACELESS_LANGUAGES
from loquent.translate.pieces import SPACE

END, UNKNOWN, PADDING = "</s>", "<unk>", "<pad>"
MOST_PIECES = 1 << 20


class Vocabulary:
    """A `Codec` of one language.

    Args:
        model: the content of the SentencePiece model's file.
        language: its code; some are written without spaces.
        numbers: piece -> its number in the network, or None if it is that of the SentencePiece model.

    Attributes:
        size: numbers that may occur are below it.
        end: the piece behind a sentence.
        silent: of each piece, whether it is never written: the unknown one and padding.
        tags: code of a target language -> the piece that asks for it, such as ``>>es<<``.

    Raises:
        ValueError: the content is no such model, or the numbers lack the end or the unknown piece.
    """

    def __init__(self, model: bytes, language: str, numbers: Mapping[str, int] | None = None) -> None:
        try:
            self._model = sentencepiece.SentencePieceProcessor(model_proto=model)
        except RuntimeError as error:
            raise ValueError(f"not a SentencePiece model: {error}") from error
        own = [self._model.id_to_piece(piece) for piece in range(len(self._model))]
        if numbers is None:
            numbers = dict(zip(own, range(len(own)), strict=True))
            self.end, self._unknown = self._model.eos_id(), self._model.unk_id()
        else:
            _check_numbers(numbers)
            self.end, self._unknown = numbers.get(END, -1), numbers.get(UNKNOWN, -1)
        if self.end < 0 or self._unknown < 0:
            raise ValueError(f"the pieces lack {END} or {UNKNOWN}; take the vocabulary that the model was trained with")
        self._numbers, self.content = numbers, model
        self.size = max(numbers.values()) + 1
        self._names = [UNKNOWN] * self.size
        for name, number in numbers.items():
            self._names[number] = name
        self.exotic = [name == UNKNOWN or _is_byte(name) for name in self._names]
        spaceless = language in SPACELESS_LANGUAGES
        self.begins_word = [name.startswith(SPACE) or (spaceless and not _is_byte(name)) for name in self._names]
        self.inner = [not spaceless and (_is_byte(name) or name[:1].isalnum()) for name in self._names]
        self.silent = [name in (UNKNOWN, PADDING) for name in self._names]
        self.silent[self.end] = False
        self.tags = {name[2:-2]: number for name, number in numbers.items() if name[:2] == ">>" and name[-2:] == "<<"}

    def encode(self, text: str) -> list[int]:
        """See `Codec.encode`."""
        return [self._numbers.get(name, self._unknown) for name in self._model.encode(text, out_type=str)]

    def decode(self, pieces: Sequence[int]) -> str:
        """See `Codec.decode`."""
        text = self._model.decode_pieces([self._names[piece] for piece in pieces])
        return text.replace(SPACE, " ").strip()  # which stays in pieces of the other language's model


def _check_numbers(numbers: Mapping[str, int]) -> None:
    wrong = [number for number in numbers.values() if type(number) is not int or not 0 <= number < MOST_PIECES]
    if wrong or not numbers:
        found = repr(wrong[0])[:40] if wrong else "none"
        raise ValueError(f"the number of a piece is {found}, expected whole numbers from 0 to {MOST_PIECES - 1}")
    if len(set(numbers.values())) < len(numbers):
        raise ValueError("two pieces have the same number; take the vocabulary that the model was trained with")


def _is_byte(name: str) -> bool:
    return len(name) == 6 and name.startswith("<0x") and name.endswith(">")
