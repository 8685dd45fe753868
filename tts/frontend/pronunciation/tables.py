"""Tables that are too large to parse whenever a program starts."""

from __future__ import annotations

import gzip
from bisect import bisect_left
from pathlib import Path


class Table:
    """A sorted file of lines "key TAB value", looked up by binary search; lines are parsed when they are asked for."""

    def __init__(self, lines: list[str]) -> None:
        self.lines = lines

    @classmethod
    def load(cls, path: Path) -> Table:
        """Read a file compressed with gzip."""
        return cls(gzip.decompress(path.read_bytes()).decode("utf-8").split("\n"))

    def get(self, key: str) -> str | None:
        """The value of a key, None if there is none."""
        start = f"{key}\t"
        at = bisect_left(self.lines, start)
        if at < len(self.lines) and self.lines[at].startswith(start):
            return self.lines[at][len(start) :]
        return None

    def __contains__(self, key: str) -> bool:
        return self.get(key) is not None

    def __len__(self) -> int:
        return len(self.lines)
