"""Word errors."""

from __future__ import annotations

import jiwer
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.loop.error_rate import ErrorTally, error_rate, word_errors

words = st.lists(st.sampled_from("a b c d".split()), max_size=8)


@settings(max_examples=60, deadline=None)
@given(reference=words.filter(bool), hypothesis=words)
def test_as_jiwer_counts(reference: list[str], hypothesis: list[str]) -> None:
    theirs = jiwer.process_words(" ".join(reference), " ".join(hypothesis))
    assert word_errors(reference, hypothesis) == theirs.substitutions + theirs.deletions + theirs.insertions


def test_rate_is_over_all_words() -> None:
    tally = ErrorTally()
    tally.add("one two three", "one three")
    tally.add("", "four")
    assert (tally.errors, tally.words) == (2, 3)
    assert tally.rate == pytest.approx(66.667, abs=1e-3)
    assert error_rate([]) == 0
