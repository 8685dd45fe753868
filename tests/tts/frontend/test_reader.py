"""Text to spoken words: the same for every cut of the text, and nothing that later text could change."""

from __future__ import annotations

import json
from collections.abc import Callable
from itertools import pairwise
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.speech.text.words import TimedWord, WordChunk, split_words
from loquent.tts.frontend.reader import LONGEST_UTTERANCE, LONGEST_WORD, Reader, ReaderOptions
from loquent.tts.frontend.spoken import SkippedText, SpokenWord

# What rules look at, so that they meet in all ways.
FRAGMENTS = """
    $5 5 million 3/4 1/2 7:30 7:00 pm p.m. Dr. St. Main Louis. March 3, 2024 2024-03-01 1990s '90s 2-3 10–15 km kg ft.
    in in. 6'2" 25°C ° C 10% % 555 555-1234 123-4567 (555) +44 20 7946 0958 USD $10-15 No. no. no 1st 21st the of May
    Henry VIII I was Chapter IV World War II J. K. Rowling A. e.g. etc. vs. Inc. U.S. He said and a.m. 1. 2. # ## - — –
    ... … ! ? ?" ." " ' ( ) (yes) word well-known it's https://www.example.com/x me@example.com @you #tag v2.0.1 C++
    H2O COVID-19 **bold** `code` <b> < > & + = x × * | ~5 naïve Привет, 你好 🎉 \x07 000 10 000 1.5 -3 century billion.
    Hello...world what?Yes item(s) [link](https://x.com) Sat. Sept. 11 on 3/4 x² αβγ ½ 1½ Mr. Smith Jr. Capital kubectl
""".split()
TAGS = """
    <break/> <break@time="1s"/> <p> </p> <s> </s> <sub@alias="W@3"> </sub> <phoneme@ph="təˈmeɪtoʊ"> </phoneme>
    <say-as@interpret-as="characters"> </say-as> <prosody@rate="slow"> </prosody> <emphasis@level="strong"> </emphasis>
    &amp; &lt; &#65; &#32; & <unknown> <!--@x@--> <a@"b </sub>
""".split()
TAGS = [tag.replace("@", " ") for tag in TAGS]
SPACES = st.sampled_from([" ", " ", " ", "  ", "\n", "\n\n", "", "\t"])
OPTIONS = ReaderOptions(lexicon={"bold": "bˈOld", "kubectl": "kjˈubkətˌəl"})
SSML = ReaderOptions(ssml=True)


def texts(parts: list[str]) -> st.SearchStrategy[str]:
    part = st.one_of(st.sampled_from(parts), st.sampled_from(parts), st.text(max_size=4))
    return st.lists(st.tuples(part, SPACES), max_size=25).map(lambda pairs: "".join(a + b for a, b in pairs))


TEXTS = texts([*FRAGMENTS])
MARKED = texts([*FRAGMENTS, *TAGS, *TAGS])


def pieces(text: str, cuts: list[int]) -> list[str]:
    places = sorted({0, len(text), *(cut % (len(text) + 1) for cut in cuts)})
    return [text[a:b] for a, b in pairwise(places)]


def at_once(text: str, options: ReaderOptions) -> list[Any]:
    """The words that are spoken if the rules see the whole text from the start."""
    reader, position = Reader(options), 0
    for word in split_words(text):
        reader._take(word, position)
        position += len(word)
    return reader.read(WordChunk((), position, False, True))


@pytest.mark.parametrize(("options", "strategy"), [(OPTIONS, TEXTS), (SSML, MARKED)], ids=["plain", "ssml"])
def test_every_cut_gives_the_same_words(
    options: ReaderOptions, strategy: st.SearchStrategy[str], stream: Callable[..., Any]
) -> None:
    @settings(max_examples=300, deadline=None)
    @given(strategy, st.lists(st.integers(0, 10**6), max_size=12), st.integers(1, 5))
    def law(text: str, cuts: list[int], count: int) -> None:
        assert stream(pieces(text, cuts), count, options) == at_once(text, options)

    law()


@pytest.mark.parametrize(("options", "strategy"), [(OPTIONS, TEXTS), (SSML, MARKED)], ids=["plain", "ssml"])
def test_what_was_given_does_not_depend_on_what_follows(
    options: ReaderOptions, strategy: st.SearchStrategy[str], stream: Callable[..., Any]
) -> None:
    @settings(max_examples=200, deadline=None)
    @given(strategy, strategy)
    def law(text: str, more: str) -> None:
        given_so_far = stream([text], options=options, end=False)
        assert stream([text + more], options=options)[: len(given_so_far)] == given_so_far

    law()


@pytest.mark.parametrize(("options", "strategy"), [(OPTIONS, TEXTS), (SSML, MARKED)], ids=["plain", "ssml"])
def test_a_flush_is_a_place_in_the_text(
    options: ReaderOptions, strategy: st.SearchStrategy[str], stream: Callable[..., Any]
) -> None:
    """Everything before it comes, and what comes does not depend on how the text is cut."""

    @settings(max_examples=150, deadline=None)
    @given(strategy, strategy, st.lists(st.integers(0, 10**6), max_size=5), st.integers(1, 4))
    def law(text: str, more: str, cuts: list[int], count: int) -> None:
        flushed = stream([text, None], options=options, end=False)
        result = stream([*pieces(text, cuts), None, *pieces(more, cuts)], count, options)
        assert result[: len(flushed)] == flushed
        spoken = [word for word in flushed if isinstance(word, SpokenWord)]
        assert not spoken or spoken[-1].closes

    law()


@pytest.mark.parametrize(("options", "strategy"), [(OPTIONS, TEXTS), (SSML, MARKED)], ids=["plain", "ssml"])
def test_a_reader_goes_on_from_what_it_saved(options: ReaderOptions, strategy: st.SearchStrategy[str]) -> None:
    @settings(max_examples=100, deadline=None)
    @given(strategy)
    def law(text: str) -> None:
        reader, position, result = Reader(options), 0, []
        for word in split_words(text):
            values = json.loads(json.dumps(reader.to_dict()))
            assert len(json.dumps(values)) < 20_000
            reader = Reader(options)
            reader.restore(values)
            result += reader.read(WordChunk((TimedWord(word, 0.0),), position, False, False))
            position += len(word)
        result += reader.read(WordChunk((), position, False, True))
        assert result == at_once(text, options)

    law()


@settings(max_examples=300, deadline=None)
@given(TEXTS)
def test_words_are_speakable_and_in_their_places(text: str) -> None:
    begin = end = count = 0
    for word in at_once(text, OPTIONS):
        assert 0 <= word.begin <= word.end <= len(text)
        assert word.begin >= begin
        if isinstance(word, SkippedText):
            assert word.reason
            assert word.begin >= end
            assert set(word.text.split()) == set(text[word.begin : word.end].split())
            continue
        begin, end = word.begin, word.end
        count = 0 if word.closes else count + 1
        assert count < LONGEST_UTTERANCE + 20  # the words of one number are not torn apart
        assert not any(map(str.isspace, word.text))
        assert not word.text or not (text[begin].isspace() or text[end - 1].isspace())
        assert not any(map(str.isnumeric, word.text))
        assert word.closes or any(map(str.isalpha, word.text))
        assert len(word.text) <= LONGEST_WORD + 100


@pytest.mark.parametrize("text", ["", " \n ", "...", "?!", "— – -", '"" () []', "***\n---\n===", "'", "!\n\n?"])
def test_nothing_is_said_of_punctuation_alone(text: str, read: Callable[..., Any]) -> None:
    assert read(text) == []


def test_words_have_their_punctuation_and_their_place(read: Callable[..., Any]) -> None:
    assert read("“Hello, there!” So") == [
        SpokenWord("“Hello,", 0, 7),
        SpokenWord("there!”", 8, 15, closes=True),
        SpokenWord("So", 16, 18),
        SpokenWord("", 18, 18, closes=True),
    ]
