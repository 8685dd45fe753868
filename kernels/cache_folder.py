"""Where loquent keeps what it can make again."""

from __future__ import annotations

import os
from pathlib import Path

import platformdirs


def cache_dir() -> Path:
    """LOQUENT_CACHE, else the user's cache folder."""
    return Path(os.environ.get("LOQUENT_CACHE") or platformdirs.user_cache_dir("loquent"))
