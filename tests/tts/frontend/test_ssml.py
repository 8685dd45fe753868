"""Tags in streamed text."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from loquent.speech.text.words import split_words
from loquent.tts.frontend.elements import break_s, tempo
from loquent.tts.frontend.ipa import from_ipa
from loquent.tts.frontend.markup import LONGEST_CONTENT, LONGEST_TAG, Markup
from loquent.tts.frontend.spoken import SpokenWord


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("<speak>Hello world</speak>", "Hello world"),
        ("<s>First</s><s>Second</s>", "First | Second |"),
        ("<p>One</p> <p>Two</p>", "One |0.5 Two |0.5"),
        ('wait <break time="500ms"/> here', "wait |0.5 here"),
        ("wait<break/>here", "wait |0.5 here"),
        ('wait <break strength="none"/> here', "wait here"),
        ('<sub alias="World Wide Web">WWW</sub>.', "World Wide Web. |"),
        ('<sub alias="3 km">x</sub> on', "three kilometers on"),
        ('<say-as interpret-as="characters">ABc1</say-as>,', "A B C one,"),
        ('<say-as interpret-as="cardinal">1984</say-as>', "one thousand nine hundred eighty four"),
        ('<say-as interpret-as="ordinal">3</say-as> time', "third time"),
        ('<say-as interpret-as="digits">12</say-as>', "one two"),
        ('<say-as interpret-as="date" format="dmy">3/4/2024</say-as>', "April third, twenty twenty four"),
        ('<say-as interpret-as="telephone">555-12</say-as>', "five five five, one two"),
        ('<say-as interpret-as="time">14:05</say-as>', "fourteen oh five"),
        ('<say-as interpret-as="what">5 km</say-as>', "five kilometers"),
        ("<b>bold</b> and <unknown a='>'>kept</unknown>", "bold and kept"),
        ("3 < 5 & 6 &lt; 7 &amp; x&#65;", "three less than five and six less than seven and xA"),
        ("x&#32;y&nbsp;z", "x y z"),
        ("$5 <break/> million", "five dollars |0.5 million"),
        ("$5 <b>million</b>", "five million dollars"),
        ("<!-- not > this --> yes", "yes"),
        ("a <b open", "a less than B open"),
        ("1 <2> 3", "one less than two greater than three"),
    ],
)
def test_tags_are_obeyed(text: str, expected: str, read: Callable[..., Any]) -> None:
    spoken = read(text, ssml=True)
    shown = []
    for word in spoken:
        shown += [word.text] if word.text else []
        shown += [f"|{word.pause_s or ''}"] if word.closes else []
    assert " ".join(shown).removesuffix(" |" if not expected.endswith("|") else "") == expected


def test_tags_are_text_unless_they_are_asked_for(read: Callable[..., Any], said: Callable[..., str]) -> None:
    assert said(read("<break/> <sub alias='x'>y</sub>")).startswith("less than break")


def test_phonemes_are_those_of_the_tag(read: Callable[..., Any]) -> None:
    (word, behind) = read('<phoneme alphabet="ipa" ph="təˈmeɪtoʊ">tomato</phoneme>, <b>', ssml=True)[:2]
    assert word == SpokenWord("tomato,", 39, 56, phonemes="təmˈAtO")
    assert behind.closes
    (word, *_) = read('<phoneme alphabet="misaki" ph="nˈu jˈɔɹk">New York</phoneme>', ssml=True)
    assert (word.text, word.phonemes) == ("New-York", "nˈu jˈɔɹk")
    (word, *_) = read('<phoneme alphabet="x-sampa" ph="t@">tomato</phoneme>', ssml=True)
    assert (word.text, word.phonemes) == ("tomato", None)


def test_tempo_holds_within_its_element(read: Callable[..., Any]) -> None:
    text = 'a <prosody rate="slow">b <emphasis level="strong">c</emphasis> d</prosody> e </prosody> f'
    rates = {word.text: word.rate for word in read(text, ssml=True) if word.text}
    assert rates == {"a": 1.0, "b": 0.8, "c": pytest.approx(0.64), "d": 0.8, "e": 1.0, "f": 1.0}


def test_words_are_in_their_places_around_tags(read: Callable[..., Any]) -> None:
    text = 'so <b>very</b> <sub alias="good grief">GG</sub> &amp; <say-as interpret-as="characters">XY</say-as>.'
    places = {word.text: text[word.begin : word.end] for word in read(text, ssml=True) if word.text}
    assert places == {
        "so": "so",
        "very": "very",
        "good": "GG",
        "grief": "GG",
        "and": "&amp;",
        "X": "XY</say-as>.",
        "Y.": "XY</say-as>.",
    }


@pytest.mark.parametrize(
    ("attributes", "seconds"),
    [
        ({"time": "1.5s"}, 1.5),
        ({"time": "250ms"}, 0.25),
        ({"time": "1000s"}, 10.0),
        ({"time": "soon"}, 0.5),
        ({"strength": "x-strong"}, 1.0),
        ({"strength": "weak"}, 0.25),
        ({}, 0.5),
    ],
)
def test_breaks_last(attributes: dict[str, str], seconds: float) -> None:
    assert break_s(attributes) == seconds


@pytest.mark.parametrize(
    ("rate", "factor"),
    [
        ("slow", 0.8),
        ("x-fast", 1.6),
        ("80%", 0.8),
        ("+10%", 1.1),
        ("-50%", 0.5),
        ("1.2", 1.2),
        ("0%", 0.25),
        ("9", 4.0),
    ],
)
def test_rates_are_factors(rate: str, factor: float) -> None:
    assert tempo("prosody", {"rate": rate}) == pytest.approx(factor)


@pytest.mark.parametrize(
    ("ipa", "phonemes"),
    [
        ("təˈmeɪtoʊ", "təmˈATO".replace("T", "t")),
        ("ˈstɹɛŋkθ", "stɹˈɛŋkθ"),
        ("t͡ʃɜːrt͡ʃ", "ʧɜɹʧ"),
        ("ˈdʒʌdʒ.mənt", "ʤˈʌʤmənt"),
        ("ˈbʌtn̩", "bˈʌtᵊn"),
        ("ɡaɪ", "ɡI"),
        ("☃", ""),
    ],
)
def test_the_phonetic_alphabet_is_mapped(ipa: str, phonemes: str) -> None:
    assert from_ipa(ipa) == phonemes


@pytest.mark.parametrize(
    "unit",
    [
        "<a ",
        "<",
        '<a b="',
        "<a>",
        "</p>",
        "<p>",
        "<prosody rate='fast'>",
        "<sub alias='x'>y ",
        "&#1",
        "<!--",
        "<sub alias='a'>",
    ],
)
def test_tags_without_end_are_bounded(unit: str) -> None:
    markup, position, given = Markup(), 0, 0
    for word in split_words(unit * 2000):
        given += sum(len(piece.text) for piece in markup.take(word, position, len(word) >= 100))
        position += len(word)
        state = markup.state
        assert len(state.tag) <= LONGEST_TAG
        assert len(state.elements) <= 16
        assert len(state.content.text if state.content else "") <= LONGEST_CONTENT
    given += sum(len(piece.text) for piece in markup.finish())
    assert given <= len(unit) * 2000
