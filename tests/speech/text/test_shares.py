"""Texts are shared out at word boundaries, and nothing of them is lost."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from loquent.speech.text.shares import shared_out


@given(st.text("ab ,.日本", max_size=60), st.lists(st.integers(0, 20), min_size=1, max_size=6))
def test_parts_join_to_the_text(text, weights):
    parts = shared_out(text, weights)
    assert len(parts) == len(weights)
    assert "".join(parts) == text.rstrip()
    assert all(not part for part, weight in zip(parts, weights, strict=True) if not weight and any(weights))


@pytest.mark.parametrize(
    ("text", "weights", "parts"),
    [
        ("uno dos tres cuatro", [1, 1], ["uno dos tres", " cuatro"]),
        ("uno dos tres cuatro", [1, 3], ["uno", " dos tres cuatro"]),
        ("uno, dos tres cuatro cinco seis", [1, 1], ["uno, dos tres", " cuatro cinco seis"]),
        ("uno dos tres, cuatro cinco", [3, 2], ["uno dos tres,", " cuatro cinco"]),
        ("uno", [1, 1], ["uno", ""]),
        ("uno dos", [9, 0, 1], ["uno", "", " dos"]),
        ("uno dos", [0, 0], ["", "uno dos"]),
        ("日本語です", [1, 1], ["日本語", "です"]),
        ("", [1, 2], ["", ""]),
    ],
)
def test_shares(text, weights, parts):
    assert shared_out(text, weights) == parts
