"""Patterns for layers match as PEFT's do, and never take long."""

from __future__ import annotations

import contextlib
import re

import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from loquent.asr.whisper.layer_patterns import MOST_STEPS, LayerPatterns

NAME = "model.decoder.layers.11.encoder_attn.q_proj"
ATOMS = ["a", "b", "c", ".", r"\.", "[ab]", "[^a]", "[]a]", r"\w", r"\d", "(a|b)", "(?:ab|c)", "(b*|c)", "^", "$"]
REPEATS = ["", "", "*", "+", "?", "{2}", "{1,2}", "{,2}", "{1,}", "*?", "+?"]
pieces = st.lists(st.tuples(st.sampled_from(ATOMS), st.sampled_from(REPEATS)), min_size=1, max_size=4)


@settings(max_examples=500, deadline=None)
@given(pieces, st.text("abc.1", max_size=7), st.booleans())
def test_they_match_as_peft_matches_them(parts: list[tuple[str, str]], name: str, grouped: bool) -> None:
    pattern = "".join(atom + repeat for atom, repeat in parts)
    pattern = f"(?:{pattern})+|b" if grouped else pattern
    try:
        expected = re.match(rf"(.*\.)?({pattern})$", name)  # `get_pattern_key` of peft/utils/other.py
    except re.error:
        assume(False)
    assert (LayerPatterns([pattern]).find(name) is not None) == (expected is not None)


@pytest.mark.parametrize(
    "pattern",
    ["q_proj", "encoder_attn.q_proj", r"layers\.\d+\..*q_proj", "(q|k)_proj", "^model.decoder.layers.11.*", ".*"],
)
def test_usual_patterns(pattern: str) -> None:
    assert LayerPatterns(["k_proj", pattern, "q_proj"]).find(NAME) == pattern
    assert LayerPatterns([pattern]).find("model.encoder.conv1") == (".*" if pattern == ".*" else None)


@pytest.mark.parametrize(
    "pattern",
    [
        "(.*)*x",
        "((.*)*)*x" * 20,
        "(.*.*.*)*" * 30 + "x",
        ".*" * 200 + "x",
        "(.|.)" * 100 + "x",
        "(a|.)?" * 80 + "x",
        "((a?){1000}){1000}",
        "(){1000000000}",
        "(.{1000000000})",
        "((.{0,500}){0,500}){0,500}x",
        "(" * 60 + "." + ")*" * 60 + "x",
    ],
)
def test_catastrophic_patterns_are_answered_or_refused(pattern: str) -> None:
    patterns = LayerPatterns([pattern])
    with contextlib.suppress(ValueError):
        for layer in range(1000):
            patterns.find(f"{NAME}.{layer}" + "x." * 30)
    assert patterns.steps <= MOST_STEPS + 1000


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("(", "not a regular expression"),
        ("[", "not a regular expression"),
        ("a**", "not a regular expression"),
        ("(" * 300, "not a regular expression"),
        ("a{99999999999}b*", "not a regular expression"),
        ("(?=a)b", "cannot be read at"),
        (r"(a)\1", "cannot be read at"),
        (r"a*\bq", "cannot be read at"),
        ("a)(b", "cannot be read at|not a regular expression"),
        ("x" * 600, "has 600 characters, expected 512 at most"),
    ],
)
def test_what_is_no_such_pattern_is_refused(pattern: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        LayerPatterns([pattern])


def test_too_many_patterns_are_refused() -> None:
    with pytest.raises(ValueError, match="there are 5000 patterns for layers, expected 4096 at most"):
        LayerPatterns(map(str, range(5000)))
