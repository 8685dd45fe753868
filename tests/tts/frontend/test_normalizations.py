"""What is read how: a table of cases."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

TABLE = Path(__file__).parent / "data" / "normalizations.tsv"
CASES = [line.split("\t") for line in TABLE.read_text(encoding="utf-8").splitlines()]


@pytest.mark.parametrize(("text", "expected"), [case[1:] for case in CASES], ids=["-".join(case[:2]) for case in CASES])
def test_written_english_is_spoken(
    text: str, expected: str, read: Callable[..., Any], said: Callable[..., str]
) -> None:
    assert said(read(text)) == expected
