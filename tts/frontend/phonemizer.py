"""Spoken words to phonemes in the alphabet of misaki and Kokoro.

Port of the grapheme-to-phoneme conversion of misaki 0.9.4 (Apache-2.0, hexgrad) by way of hibari-tts 0.2.1 (Apache-2.0,
Maureese Williams), see `tts/assets/english/NOTICE`.
"""

from __future__ import annotations

import hashlib
import re
from collections.abc import Sequence
from functools import lru_cache
from pathlib import Path

from loquent.tts.frontend.pronunciation.lexicon import Context, Lexicon
from loquent.tts.frontend.pronunciation.parts import PAUSES, Part, groups_of, parts_of, read_group
from loquent.tts.frontend.pronunciation.tables import Table
from loquent.tts.frontend.pronunciation.tagger import Tagger
from loquent.tts.frontend.pronunciation.tokenizer import Tokenizer
from loquent.tts.frontend.pronunciation.unknown_words import UnknownWords
from loquent.tts.frontend.spoken import SpokenWord

SHELL = re.compile(r"^(\W*)(.*?)(\W*)$", re.DOTALL)  # punctuation around a word
DOTTED = re.compile(r"\W*(?:[A-Za-z]\.)+[A-Za-z]\W+")  # whose last dot ends the sentence
ASSETS = Path(__file__).parents[1] / "assets" / "english"


class Phonemizer:
    """Reads windows of words in American English.

    What a word sounds like depends on the tags of the tokens around it, which depend on those before them and on two
    tokens to either side, and on the first phone of the word behind it: "the", "to", "in".

    Args:
        tokenizer, tagger, lexicon: of the language.
        weights: of the net for words that the lexicon does not know; they are loaded for the first one.
        fingerprint: of them all.
    """

    def __init__(self, tokenizer: Tokenizer, tagger: Tagger, lexicon: Lexicon, weights: Path, fingerprint: str) -> None:
        self.fingerprint = fingerprint
        self._tokenizer, self._tagger, self._lexicon, self._weights = tokenizer, tagger, lexicon, weights
        self._unknown_words: UnknownWords | None = None
        self._read = lru_cache(maxsize=16384)(self._read_group)

    @classmethod
    def load(cls, folder: Path = ASSETS) -> Phonemizer:
        """Load the language of a folder; American English by default."""
        digest = hashlib.sha256(b"1")  # of these rules
        for path in sorted(folder.glob("*.*")):
            digest.update(path.read_bytes())
        table = {path.name.partition(".")[0]: Table.load(path) for path in folder.glob("*.tsv.gz")}
        return cls(
            Tokenizer(table["exceptions"]),
            Tagger(table["words"], table["tags"]),
            Lexicon(table["gold"], table["silver"]),
            folder / "unknown_words.safetensors",
            digest.hexdigest()[:16],
        )

    def phonemes(self, words: Sequence[SpokenWord]) -> list[str]:
        """The phonemes of each word of a window, with its punctuation and the space behind it.

        What the model reads is their concatenation. Behind the last word there is no space.
        """
        tokens = [self._tokens(word) for word in words]
        tags = iter(self._tagger([token for some in tokens for token, _ in some]))
        parts = [[part for token, given in some for part in parts_of(token, next(tags), given)] for some in tokens]
        context = Context()
        result: list[str] = []
        behind = ""
        for word, own in zip(reversed(words), reversed(parts), strict=True):
            phonemes = ""
            for index, group in reversed(list(enumerate(groups_of(own)))):
                said, context = self._read(tuple((part.text, part.tag, part.phonemes) for part in group), context)
                apart = " " if index == 0 and phonemes and said in PAUSES else ""  # "—word" was "— word"
                phonemes = said + apart + phonemes
            result.append(
                phonemes.replace("ɾ", "T").replace("ʔ", "t") + (behind if phonemes and not word.joined else "")
            )
            behind = behind or (" " if phonemes else "")
        return result[::-1]

    def _tokens(self, word: SpokenWord) -> list[tuple[str, str | None]]:
        """The tokens of a word, and their phonemes if they are given."""
        if word.phonemes is None and not DOTTED.fullmatch(word.text):
            return [(token, None) for token in self._tokenizer(word.text)]
        before, core, behind = SHELL.findall(word.text)[0]
        if not core:  # a sign whose phonemes are given
            before, core, behind = "", word.text, ""
        marks = self._tokenizer(behind) if behind else ()
        return [*((mark, None) for mark in before), (core, word.phonemes), *((mark, None) for mark in marks)]

    def _read_group(self, group: tuple[tuple[str, str, str | None], ...], context: Context) -> tuple[str, Context]:
        return read_group([Part(*part) for part in group], context, self._lexicon, self._unknown)

    def _unknown(self, letters: str) -> str:
        if self._unknown_words is None:
            self._unknown_words = UnknownWords.load(self._weights)
        return self._unknown_words.read(letters)
