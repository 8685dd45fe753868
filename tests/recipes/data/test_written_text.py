"""Transcripts in Whisper's style."""

from __future__ import annotations

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from loquent.recipes.data.written_text import written


@pytest.mark.parametrize(
    ("given_text", "expected"),
    [
        ("liya likes the old safe", "Liya likes the old safe."),
        ("i'm here and i will", "I'm here and I will."),
        ("WHAT A DAY", "What a day."),
        ("c", "C"),
        ("OK", "OK"),
        ('"Hello" -- he said; go: now', "Hello, he said, go, now"),
        ("(sigh) Not you <hack> again.", "Not you again."),
        ("(sigh)", ""),
        ("...", ""),
        ("a half-witted plan, isn’t it?", "A half-witted plan, isn't it?"),
        ("Nothing to change, Mr. X.", "Nothing to change, Mr. X."),
    ],
)
def test_examples(given_text: str, expected: str) -> None:
    assert written(given_text) == expected


@settings(max_examples=200, deadline=None)
@given(st.text("abI i',.-!?\"()<> ", max_size=30))
def test_writing_again_changes_nothing(text: str) -> None:
    assert written(written(text)) == written(text)
