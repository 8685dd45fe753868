"""What is read how: a table of cases."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

PAGE = Path(__file__).parents[3] / "docs" / "topics" / "text-normalisation.md"
TABLE = Path(__file__).parent / "data" / "normalizations.tsv"
CASES = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=["-".join(case[:2]) for case in CASES])
def test_written_english_is_spoken(
    text: str, expected: str, read: Callable[..., Any], said: Callable[..., str]
) -> None:
    assert said(read(text)) == expected


def test_the_page_tells_what_is_read_how(read: Callable[..., Any], said: Callable[..., str]) -> None:
    rows = re.findall(r"^\| [a-zR ,]+ \| (.+) \| (.+) \|$", PAGE.read_text(encoding="utf-8"), re.MULTILINE)
    pairs = [
        (text, expected)
        for written, spoken in rows
        if written.count(" · ") == spoken.count(" · ") > 0
        for text, expected in zip(written.split(" · "), spoken.split(" · "), strict=True)
    ]
    assert len(pairs) > 40
    assert {text: said(read(text)).rstrip(".") for text, _ in pairs} == dict(pairs)
