"""Text to the tokens of the language model, also of text that comes in pieces: the same tokens, however it is cut."""

from __future__ import annotations

import re
from collections.abc import Sequence
from pathlib import Path

from tokenizers import AddedToken, Tokenizer

from loquent.tts.cosyvoice.marks import MARKS

END_OF_PROMPT = "<|endofprompt|>"


class TextTokenizer:
    """A byte-level BPE tokenizer as Qwen's, with CosyVoice's marks ("[laughter]", "<strong>") as tokens of their own.

    Args:
        tokenizer: it splits text into pieces before it merges; the marks are added to it.
        marks: those that it does not have get numbers from its end on, in this order.

    Raises:
        ValueError: it does not split text, so that no token of a stream is ever final.
    """

    def __init__(self, tokenizer: Tokenizer, marks: Sequence[str]) -> None:
        if tokenizer.pre_tokenizer is None:
            raise ValueError("the text tokenizer does not split text before it merges: it is not Qwen's")
        tokenizer.add_special_tokens([AddedToken(mark, special=True, normalized=False) for mark in marks])
        self.tokenizer = tokenizer
        special = [token.content for token in tokenizer.get_added_tokens_decoder().values()]
        self.marks = re.compile("|".join(re.escape(mark) for mark in sorted(special, key=len, reverse=True)))
        self._openings = {mark[:size] for mark in special for size in range(1, len(mark))}
        self._longest = max(map(len, special), default=0)

    @classmethod
    def load(cls, folder: Path, version: int) -> TextTokenizer:
        """Of a folder in Hugging Face's format: with a `tokenizer.json`, or whatever transformers can read.

        Raises:
            ValueError: it holds no tokenizer.
            ImportError: it has no `tokenizer.json`, and transformers is not installed.
        """
        file = folder / "tokenizer.json"
        try:
            if file.is_file():
                return cls(Tokenizer.from_file(str(file)), MARKS[version])
            try:
                from transformers import AutoTokenizer
            except ImportError as error:
                raise ImportError(
                    f"{folder} has no tokenizer.json; to read it otherwise, in a checkout of loquent: "
                    'pip install ".[cosyvoice]"'
                ) from error
            loaded = AutoTokenizer.from_pretrained(str(folder), local_files_only=True, trust_remote_code=False)
            return cls(loaded.backend_tokenizer, MARKS[version])
        except ImportError:
            raise
        except Exception as error:  # of any kind, in either library
            raise ValueError(f"{folder} holds no text tokenizer that can be read: {error}") from error

    @property
    def size(self) -> int:
        """One more than the largest token."""
        return max(self.tokenizer.get_vocab(with_added_tokens=True).values()) + 1

    @property
    def end_of_prompt(self) -> int | None:
        """The token behind which a prompt of CosyVoice 3 ends."""
        return self.tokenizer.token_to_id(END_OF_PROMPT)

    def encode(self, text: str) -> list[int]:
        """Tokens of a whole text."""
        return self.tokenizer.encode(text, add_special_tokens=False).ids

    def advance(self, text: str) -> tuple[list[int], str]:
        """Tokens of the part of a text that more text behind it cannot change, and the rest, to be put before it.

        A piece between marks is final when another one has begun behind it.
        """
        if self.tokenizer.normalizer is not None:
            text = self.tokenizer.normalizer.normalize_str(text)
        final = max((match.end() for match in self.marks.finditer(text)), default=0)
        pieces = self.tokenizer.pre_tokenizer.pre_tokenize_str(text[final : self._opening(text, final)])
        if pieces:
            final += pieces[-1][1][0]
        return self.encode(text[:final]), text[final:]

    def _opening(self, text: str, first: int) -> int:
        """Where a mark that is not complete yet may begin, not before ``first``; the length where none does."""
        for start in range(max(first, len(text) - self._longest), len(text)):
            if text[start:] in self._openings:
                return start
        return len(text)
