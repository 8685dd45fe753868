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
    @settings(max_examples=150, deadline=None)
    @given(strategy, st.lists(st.integers(0, 10**6), max_size=12), st.integers(1, 5))
    def law(text: str, cuts: list[int], count: int) -> None:
        assert stream(pieces(text, cuts), count, options) == at_once(text, options)

    law()


@pytest.mark.parametrize(("options", "strategy"), [(OPTIONS, TEXTS), (SSML, MARKED)], ids=["plain", "ssml"])
def test_what_was_given_does_not_depend_on_what_follows(
    options: ReaderOptions, strategy: st.SearchStrategy[str], stream: Callable[..., Any]
) -> None:
    @settings(max_examples=100, deadline=None)
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

    @settings(max_examples=80, deadline=None)
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
    @settings(max_examples=50, deadline=None)
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


@settings(max_examples=150, deadline=None)
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


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("He left. She stayed.", ["He left.", "She stayed."]),
        ("Really?! Yes… no.", ["Really?!", "Yes… no."]),
        ('"Is it?" he asked. "Go!" She went.', ['"Is it?" he asked.', '"Go!"', "She went."]),
        ("Wait... Then go.", ["Wait...", "Then go."]),
        ("Wait... then go.", ["Wait... then go."]),
        ("Dr. Lee and Mr. Wu of Acme Inc. met J. Doe at 5 p.m. today.", None),
        ("It costs $3.50 or 4.5 euros, e.g. for v1.2.3.", None),
        ("one\n\ntwo\nThree\nfour", ["one", "two", "Three four"]),
        ("* one\n* two", ["one", "two"]),
        ("He left .\nshe stayed", ["He left", "she stayed"]),
    ],
)
def test_sentences_end_where_they_end(text: str, expected: list[str] | None, read: Callable[..., Any]) -> None:
    sentences = [""]
    for word in read(text):
        sentences[-1] += f" {word.text}" if word.text else ""
        sentences += [""] if word.closes else []
    found = [sentence.strip() for sentence in sentences if sentence]
    assert found == expected if expected else len(found) == 1


def test_lines_and_paragraphs_make_pauses(read: Callable[..., Any]) -> None:
    pauses = [word.pause_s for word in read("One\nTwo\n\nThree. \n\n Four") if not word.text]
    assert pauses == [0.2, 0.5, 0.5, 0.0]
    pauses = [word.pause_s for word in read("One\n```python\n---\n\nTwo") if not word.text]
    assert pauses == [0.2, pytest.approx(0.3), 0.0]


def test_endless_sentences_are_ended(read: Callable[..., Any]) -> None:
    plain = [word.closes for word in read("word " * 200)]
    assert [at + 1 for at, closes in enumerate(plain[:-1]) if closes] == [60, 120, 180]
    commas = [word.closes for word in read("word, " * 200)]
    assert commas.index(True) + 1 == 45


def test_long_words_are_cut(read: Callable[..., Any]) -> None:
    words = read("x" + "ab" * 40 + "!")
    assert [len(word.text) for word in words] == [30, 30, 22]
    assert [word.joined for word in words] == [True, True, False]
    assert "".join(word.text for word in words) == "x" + "ab" * 40 + "!"


@pytest.mark.parametrize("unit", ["a", "7", "-", ".", "a.", "$", "(", "你", "\x07", "1-", "<", "🎉", "www.", "é"])
@pytest.mark.parametrize("ssml", [False, True])
def test_text_without_white_space_costs_what_it_is_long(unit: str, ssml: bool) -> None:
    reader, position = Reader(ReaderOptions(ssml=ssml)), 0
    for word in split_words(unit * (6_000 // len(unit))):
        reader.read(WordChunk((TimedWord(word, 0.0),), position, False, False))
        position += len(word)
        assert len(json.dumps(reader.to_dict())) < 20_000


def test_the_words_of_a_lexicon_go_first(read: Callable[..., Any]) -> None:
    lexicon = {"kubectl": "kjˈubkəɹˌəl", "GIF": "ʤˈɪf", "5G": "fˈIv", "St": "sˈænt"}
    words = read('"Kubectl", GIFs, GIF\'s 5G St. Louis', lexicon=lexicon)
    assert [(word.text, word.phonemes) for word in words if word.text] == [
        ('"Kubectl",', "kjˈubkəɹˌəl"),
        ("GIFs,", None),
        ("GIF's", "ʤˈɪfs"),
        ("5G", "fˈIv"),
        ("St.", "sˈænt"),
        ("Louis", None),
    ]


@pytest.mark.parametrize(
    ("text", "skipped", "reason"),
    [
        ("Hello Привет мир!", "Привет мир", "Cyrillic"),
        ("say 你好 now", "你好", "Chinese"),
        ("שלום there", "שלום", "Hebrew"),
        ("nice 🎉🎉 day", "🎉🎉", "pictures"),
        ("a\x07b", "\x07", "control"),
        ("مرحبا", "مرحبا", "Arabic"),
    ],
)
def test_what_is_not_read_is_told(text: str, skipped: str, reason: str, read: Callable[..., Any]) -> None:
    (told,) = [part for part in read(text) if isinstance(part, SkippedText)]
    assert told.text == skipped == text[told.begin : told.end]
    assert reason in told.reason


def test_accents_are_kept_for_the_voice(read: Callable[..., Any], phonemizer: Any) -> None:
    (word, _) = read("cafe\u0301")
    assert word == SpokenWord("café", 0, 5)
    assert phonemizer.phonemes([word]) == phonemizer.phonemes([SpokenWord("cafe", 0, 4)])
    assert phonemizer.phonemes([SpokenWord("André", 0, 5)]) != phonemizer.phonemes([SpokenWord("Andre", 0, 5)])


def test_foreign_values_are_refused() -> None:
    reader = Reader(ReaderOptions())
    reader.read(WordChunk((TimedWord("Hello", 0.0), TimedWord(" $5", 0.0)), 0, False, False))
    good = reader.to_dict()
    piece = good["pieces"][0]
    bad: list[dict[str, Any]] = [{}, good | {"markup": {}}, good | {"extra": 1}]
    bad += [good | {name: value} for name, value in [("spoken", -1), ("end", "x"), ("before", ["a"] * 9), ("lead", 5)]]
    bad += [good | {"pieces": [piece | {name: value}]} for name, value in [
        ("begin", -1), ("end", 10**20), ("rate", float("nan")), ("rate", 100.0), ("pause_s", 1e9), ("text", "a b"),
        ("text", "x" * 10_000), ("words", ["x"] * 10_000), ("text", None), ("phonemes", 3),
    ]]  # fmt: skip
    bad.append(good | {"pieces": [piece] * 600})
    for values in bad:
        with pytest.raises(ValueError, match=" "):
            Reader(ReaderOptions()).restore(values)
    with pytest.raises(ValueError, match="ssml"):
        Reader(ReaderOptions(ssml=True)).restore(good)
    reader.restore(good)
    assert reader.to_dict() == good
