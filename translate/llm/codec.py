"""The pieces of a language model's tokenizer, and which of them begin words, break lines or are no text at all."""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from functools import cache

from tokenizers import Tokenizer

from loquent.speech.text.languages import SPACELESS_LANGUAGES

_BYTE = re.compile(r"<0x([0-9A-F]{2})>")


class LanguageModelCodec:
    """Text of one language to pieces and back; see `loquent.translate.model.Codec`.

    Text never becomes a mark of the tokenizer, such as the end of a turn, whatever it says; `marks` does.

    Args:
        tokenizer: with byte-level pieces (GPT-2, Llama 3, Qwen) or SentencePiece's (Llama 2, Mistral).
        language: code.
        size: scores of the model; pieces beyond the tokenizer's are never written.
    """

    def __init__(self, tokenizer: Tokenizer, language: str, size: int) -> None:
        if tokenizer.get_vocab_size() > size:
            raise ValueError(f"the tokenizer has {tokenizer.get_vocab_size()} pieces, the model only {size}")
        self._tokenizer, self._text = tokenizer, _without_marks(tokenizer)
        self.size, self.vocabulary = size, tokenizer.get_vocab(with_added_tokens=True)
        contents: list[bytes | None] = [None] * size
        starts = [False] * size
        byte_level = any(name.startswith("Ġ") for name in self.vocabulary)
        special = {piece for piece, token in tokenizer.get_added_tokens_decoder().items() if token.special}
        for name, piece in self.vocabulary.items():
            if piece not in special:
                contents[piece] = _from_byte_level(name) if byte_level else _from_sentence_piece(name)
                starts[piece] = name.startswith("Ġ" if byte_level else "▁")
        self.special = [one is None for one in contents]
        self.exotic = [one is not None and _is_part(one) for one in contents]
        self.breaks_line = [one is not None and b"\n" in one for one in contents]
        spaceless = language in SPACELESS_LANGUAGES
        self.begins_word = [not part for part in self.exotic] if spaceless else starts
        self.inner = [
            not (spaceless or begins or one is None) and (part or one.decode()[:1].isalnum())
            for begins, part, one in zip(self.begins_word, self.exotic, contents, strict=True)
        ]
        first = self._text.encode("a", add_special_tokens=False).tokens
        self._space = "" if spaceless or first[0].startswith("▁") else " "

    def encode(self, text: str) -> list[int]:
        """Pieces of words, the space before the first one included."""
        return list(self._text.encode(self._space + text, add_special_tokens=False).ids)

    def decode(self, pieces: Sequence[int]) -> str:
        """The text of pieces, without the space before its first word."""
        text: str = self._tokenizer.decode(list(pieces), skip_special_tokens=True)
        return text.removeprefix(" ")

    def marks(self, text: str) -> list[int]:
        """Pieces of text in which the names of marks stand for them."""
        return list(self._tokenizer.encode(text, add_special_tokens=False).ids)

    def piece(self, name: str) -> int:
        """The piece of a name.

        Raises:
            ValueError: there is none.
        """
        if name not in self.vocabulary:
            raise ValueError(f"the tokenizer has no piece {name!r}")
        return self.vocabulary[name]


def _without_marks(tokenizer: Tokenizer) -> Tokenizer:
    """One to which marks are text like any other."""
    content = json.loads(tokenizer.to_str())
    for token in content["added_tokens"]:
        token["special"] = True
    text = Tokenizer.from_str(json.dumps(content))
    text.encode_special_tokens = True
    return text


def _from_byte_level(name: str) -> bytes:
    table = _bytes_by_letter()
    return bytes(table[letter] for letter in name) if all(letter in table for letter in name) else name.encode()


def _from_sentence_piece(name: str) -> bytes:
    byte = _BYTE.fullmatch(name)
    return bytes([int(byte[1], 16)]) if byte else name.replace("▁", " ").encode()


def _is_part(content: bytes) -> bool:
    """Whether bytes are not whole characters."""
    try:
        content.decode()
    except UnicodeDecodeError:
        return True
    return False


@cache
def _bytes_by_letter() -> dict[str, int]:
    """How GPT-2 writes bytes: printable ones as they are in Latin-1, the others from U+0100 on, in order."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    others = [byte for byte in range(256) if byte not in printable]
    return {chr(byte): byte for byte in printable} | {chr(0x100 + at): byte for at, byte in enumerate(others)}
