"""Spoken words to phonemes, as the grapheme-to-phoneme conversion that it is a port of."""

from __future__ import annotations

import random
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch

from loquent.tts.frontend.phonemizer import ASSETS, Phonemizer
from loquent.tts.frontend.pronunciation.tables import Table
from loquent.tts.frontend.pronunciation.unknown_words import LONGEST, UnknownWords
from loquent.tts.frontend.spoken import SpokenWord

GOLDEN = (Path(__file__).parent / "data" / "pronunciations.tsv").read_text(encoding="utf-8").splitlines()


def words(text: str) -> list[SpokenWord]:
    return [SpokenWord(word, 0, 0) for word in text.split()]


@pytest.mark.parametrize(("text", "phonemes"), [line.split("\t") for line in GOLDEN])
def test_sentences_sound_as_in_the_original(
    text: str, phonemes: str, phonemizer: Phonemizer, read: Callable[..., Any]
) -> None:
    spoken = [word for word in read(text) if word.text]
    assert "".join(phonemizer.phonemes(spoken)) == phonemes


def test_many_sentences_sound_as_in_the_original(phonemizer: Phonemizer, read: Callable[..., Any]) -> None:
    """Words of the lexicon and words of no lexicon, in an order that makes all kinds of neighbours."""
    original = pytest.importorskip("hibari.g2p").G2P()
    draw = random.Random(3)
    vocabulary = sorted({word for line in GOLDEN for word in line.split("\t")[0].strip(".!?").split(" ")} - {"—", "A"})
    known = [line.partition("\t")[0] for line in Table.load(ASSETS / "gold.tsv.gz").lines if line[:1].isalpha()]
    unknown = ["".join(draw.choice("bcdfgklmnprstvz") + draw.choice("aeiou") for _ in range(3)) for _ in range(500)]
    for _ in range(150):
        picked = draw.sample(vocabulary, 8) + draw.sample(known, 3) + draw.sample(unknown, 1)
        draw.shuffle(picked)
        text = " ".join(word for word in picked if word.replace("'", "").replace("-", "").isalpha()) + " today."
        spoken = [word for word in read(text) if word.text]
        assert "".join(phonemizer.phonemes(spoken)) == original(text), text


def test_unknown_words_sound_as_in_the_original() -> None:
    """Half precision changes no phoneme of a thousand words."""
    original = pytest.importorskip("hibari.g2p.oov").OOV()
    net = UnknownWords.load(ASSETS / "unknown_words.safetensors")
    lines = Table.load(ASSETS / "silver.tsv.gz").lines
    sample = [line.partition("\t")[0] for line in lines[:: len(lines) // 1000]]
    assert len(sample) >= 1000
    assert [word for word in sample if net.read(word) != original(word)] == []


def test_unknown_words_depend_on_no_batch() -> None:
    net = UnknownWords.load(ASSETS / "unknown_words.safetensors")
    letters = torch.randint(1, 50, (2, LONGEST))
    torch.testing.assert_close(net(letters)[1:], net(letters[1:]))


def test_words_have_spaces_between_them(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("Hello, there!")) == ["həlˈO, ", "ðˈɛɹ!"]
    assert phonemizer.phonemes([SpokenWord("left—", 0, 5, joined=True), SpokenWord("so", 5, 7)]) == ["lˈɛft—", "sˌO"]
    assert phonemizer.phonemes([SpokenWord("it", 0, 2), SpokenWord("", 2, 2, closes=True)]) == ["ɪt", ""]
    assert phonemizer.phonemes([]) == []


def test_a_dash_between_spaces_keeps_them(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes([SpokenWord("stop", 0, 4), SpokenWord("—now", 7, 10)]) == ["stˈɑp ", "— nˈW"]


def test_the_next_sound_changes_weak_words(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("the apple"))[0] == "ði "
    assert phonemizer.phonemes(words("the pear"))[0] == "ðə "


def test_the_words_around_it_change_a_word(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("I will read it"))[2] == "ɹˈid "
    assert phonemizer.phonemes(words("I have read it"))[2] == "ɹˈɛd "


def test_phonemes_that_are_given_are_taken(phonemizer: Phonemizer) -> None:
    given = SpokenWord("(GIF),", 0, 6, phonemes="ʤˈɪf")
    assert phonemizer.phonemes([SpokenWord("the", 0, 3), given]) == ["ðə ", "(ʤˈɪf),"]


def test_the_dot_behind_letters_ends_the_sentence(phonemizer: Phonemizer) -> None:
    assert phonemizer.phonemes(words("U.S.")) == ["jˌuˈɛs."]
    assert phonemizer.phonemes(words("U.S"))[0] == "jˌuˈɛs"
