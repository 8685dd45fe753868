"""Spoken words to phonemes, as the grapheme-to-phoneme conversion that it is a port of."""

from __future__ import annotations

import pytest

from loquent.tts.frontend.phonemizer import Phonemizer
from loquent.tts.frontend.spoken import SpokenWord


@pytest.fixture(scope="module")
def phonemizer() -> Phonemizer:
    return Phonemizer.load()


def words(text: str) -> list[SpokenWord]:
    return [SpokenWord(word, 0, 0) for word in text.split()]


def test_words_have_spaces_between_them(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("Hello, there!")) == ["həlˈO, ", "ðˈɛɹ!"]


def test_the_next_sound_changes_weak_words(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("the apple"))[0] == "ði "
    assert phonemizer.phonemes(words("the pear"))[0] == "ðə "
