"""The recipes that come with loquent, by name."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

CONFIGS = Path(__file__).parent / "configs"


def described_recipes() -> Iterator[str]:
    """A line for each recipe: its name, and what its file says first."""
    files = sorted(CONFIGS.glob("*.yaml"))
    width = max(len(file.stem) for file in files)
    for file in files:
        first = file.read_text(encoding="utf-8").partition("\n")[0]
        yield f"{file.stem:{width}}  {first.lstrip('# ')}"
