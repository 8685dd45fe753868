"""Long translations are cut to the segments of their references."""

from __future__ import annotations

import dataclasses
from functools import cache

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.translate.score import Instance, Segment, resegment
from loquent.translate.score.alignment import Similarity, align
from loquent.translate.score.resegment import owners_of

drawn = settings(max_examples=50, deadline=None)
WORDS = st.lists(st.sampled_from(["haus", "maus", "laus,", "der", "die", ".", "no", "on", "?!"]), max_size=7)


@drawn
@given(st.lists(WORDS.filter(bool), min_size=1, max_size=6))
def test_references_come_back(segments: list[list[str]]) -> None:
    owners = owners_of([word for words in segments for word in words], [" ".join(words) for words in segments])
    assert owners == [number for number, words in enumerate(segments) for _ in words]


@drawn
@given(WORDS, st.lists(WORDS, min_size=1, max_size=4))
def test_every_word_has_a_segment_and_their_order_stays(hypothesis: list[str], segments: list[list[str]]) -> None:
    references = [" ".join(words) for words in segments]
    if not any(references):
        with pytest.raises(ValueError, match="expected references with text, got"):
            owners_of(hypothesis, references)
        return
    owners = owners_of(hypothesis, references)
    assert len(owners) == len(hypothesis)
    assert owners == sorted(owners)
    assert all(references[owner] for owner in owners)


def test_by_hand() -> None:
    """What is added goes with the words before it, unless it is more like those after it."""
    owners = owners_of("Das Haus äh brennt. Dier Leute laufen weg".split(), ["das haus brennt .", "Die Leute rennen"])
    assert owners == [0, 0, 0, 0, 1, 1, 1, 1]


def test_punctuation_never_stands_for_a_word() -> None:
    assert owners_of(["..."], ["eins", "..."]) == [1]
    assert owners_of(["eins"], ["...", "eins"]) == [1]
    assert owners_of(["«Zwei»"], ["« eins", "zwei"]) == [1]  # its letters count, not its marks


def test_marks_of_other_scripts_are_no_punctuation() -> None:
    assert owners_of("नमस्ते दुनिया".split(), ["नमस्ते", "दुनिया"]) == [0, 1]


def test_characters() -> None:
    assert owners_of(list("你好世界"), ["你好", "世界"], "char") == [0, 0, 1, 1]


@drawn
@given(WORDS.filter(bool), WORDS.filter(bool))
def test_alignment_is_the_best(reference: list[str], hypothesis: list[str]) -> None:
    alike = Similarity(reference, hypothesis)

    @cache
    def best(i: int, j: int) -> float:
        if i == 0 or j == 0:
            return 0.0
        return max(best(i - 1, j - 1) + float(alike.row(i - 1)[j - 1]), best(i - 1, j), best(i, j - 1))

    path = align(alike)
    assert [i for i, _ in path if i is not None] == list(range(len(reference)))
    assert [j for _, j in path if j is not None] == list(range(len(hypothesis)))
    total = sum(float(alike.row(i)[j]) for i, j in path if i is not None and j is not None)
    assert total == pytest.approx(best(len(reference), len(hypothesis)))


@pytest.mark.parametrize("cells", [0, 300, 2_000])
def test_a_band_is_made_as_wide_as_it_has_to_be(cells: int) -> None:
    """The hypothesis lacks the first third: the alignment is far from the diagonal."""
    reference = [chr(0x4E00 + at) for at in range(60)]
    alike = Similarity(reference, reference[20:])
    assert align(alike, cells) == align(alike)
    assert (59, 39) in align(alike)


@drawn
@given(st.integers(1, 12), st.integers(0, 12), st.integers(0, 150))
def test_a_band_gives_an_alignment(n: int, m: int, cells: int) -> None:
    path = align(Similarity(["a"] * n, ["ab"] * m), cells)
    assert [i for i, _ in path if i is not None] == list(range(n))
    assert [j for _, j in path if j is not None] == list(range(m))


def test_times_count_from_the_segment() -> None:
    instance = Instance("eins zwei drei", (1.0, 3.0, 5.0), 6.0, elapsed=(1.5, 3.5, 5.5), erased=2, index=7)
    first, second, third = resegment(
        instance, [Segment("eins", 0.5, 1.0), Segment("zwei drei", 2.0, 2.0), Segment("vier", 5, 1)]
    )
    assert first == Instance("eins", (0.5,), 1.0, "eins", (1.0,), recording_end=5.5)
    assert second == Instance("zwei drei", (1.0, 3.0), 2.0, "zwei drei", (1.5, 3.5), recording_end=4.0)
    assert (third.prediction, third.delays, third.recording_end) == ("", (), 1.0)


@drawn
@given(st.floats(-100, 100))
def test_only_differences_of_times_matter(shift: float) -> None:
    instance = Instance("eins zwei", (1.0, 3.0), 200.0)
    segments = [Segment("eins", 0.5, 1.0), Segment("zwei", 2.0, 2.0)]
    moved = dataclasses.replace(instance, delays=(1.0 + shift, 3.0 + shift), source_length=200.0 + shift)
    shifted = [dataclasses.replace(segment, start=segment.start + shift) for segment in segments]
    for one, other in zip(resegment(instance, segments), resegment(moved, shifted), strict=True):
        assert other.delays == pytest.approx(one.delays, abs=1e-9)
        assert other.recording_end == pytest.approx(one.recording_end)
