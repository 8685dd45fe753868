"""Lines of text files, packed or not."""

from __future__ import annotations

import subprocess
from pathlib import Path


def read_lines(path: str | Path) -> list[str]:
    """The lines of a UTF-8 file; ``.zst`` is unpacked by the program of that name."""
    path = Path(path)
    if path.suffix != ".zst":
        return path.read_text(encoding="utf-8").splitlines()
    return subprocess.run(["zstd", "-dcq", str(path)], check=True, capture_output=True).stdout.decode().split("\n")
